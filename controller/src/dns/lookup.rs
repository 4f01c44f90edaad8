//! Questions to the domain name system.
