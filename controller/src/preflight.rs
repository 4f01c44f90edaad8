//! Looks as the CA would, before and while a challenge is spent. It never decides; `tasks/issuance` does.
