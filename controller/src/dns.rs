//! DNS as the controller sees it, around hickory. It decides nothing; `preflight` and tasks ask it.

pub mod lookup;
