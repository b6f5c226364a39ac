//! The client and the command line against a real gRPC server that follows a script.

mod scripted;

mod batch;
mod cache;
mod command_line;
mod corpus;
mod embed;
mod explain;
mod explain_all;
mod interrupt;
mod readme;
mod silent_server;
mod stream;
