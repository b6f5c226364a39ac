//! Attacks, each as it was made: what a hostile client does, what it may cost, and that its neighbours do not notice.
//! SECURITY.md names the promise that each of them holds; `make bench-attacks` measures them on a whole server.

mod admin;
mod bodies;
mod connections;
mod embed;
mod forged_redis;
mod full_disk;
mod http_readers;
mod identity_files;
mod model_files;
mod parsers;
mod probes;
mod rates;
mod received;
mod resets;
mod sessions;
mod shares;
mod tenants;
mod unread_answers;
mod withdrawal;
