//! The durable truth: redb records with revisions, secrets sealed with AES-256-GCM. Every other room goes through it.
