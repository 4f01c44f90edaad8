//! The one door to ACME servers (RFC 8555), around instant-acme. It decides nothing: `tasks/issuance` calls it one step
//! at a time.
