//! One replica at a time generates an answer: a lease in Redis says which.
//!
//! A lease is a random token in the place of the answer, with a time to live and a message authentication code. Its holder
//! renews it with each piece of the answer that it tells of, and ends it by storing the answer, or gives it up by comparing
//! and deleting. A holder that dies or is cut off loses it by time. Two holders at once, where Redis forgets one, cost the
//! answer being generated twice, and nothing else: answers that have leases are reproducible.
//!
//! What is told goes to a stream of Redis under a name with the token, so that what an earlier holder told is never mixed
//! with it. The stream is no longer than an answer may be, and expires.
//!
//! Every command has a single key: those of several fail while their slot moves from one node of a cluster to another.

use std::time::Duration;

use redis::{Pipeline, Value};

use super::token::{LEASE_BYTES, Lease, Token};
use super::values::Found;
use super::{Failure, Remote, names};
use crate::key::CacheKey;

/// How long a stream is kept after something was added: time for those who read it to come to its end.
const LOG_TTL: Duration = Duration::from_secs(10);
/// Pieces that are read at once.
const READ_COUNT: u32 = 256;

/// What is in an answer's place, or else nothing, after the lease for it was put there.
///
/// The answer's name; the lease, its milliseconds, the longest value.
const BEGIN: &str = "\
local value = redis.call('GETRANGE', KEYS[1], 0, ARGV[3])
if value ~= '' then return {value, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return {}";

/// Puts the next lease of the same holder into the place of the last one; 0: it is somebody else's, or has ended.
///
/// The answer's name; the holder, the lease, its milliseconds.
const RENEW: &str = "\
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Gives a lease up, unless it is somebody else's.
///
/// The answer's name; the holder.
const RELEASE: &str = "\
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])";

/// What was told after a piece. Stops before more than a number of bytes, so that nobody can make this server read more;
/// then the last part of the reply says so.
///
/// The stream's name; the last piece read, pieces and bytes at most.
const READ: &str = "\
local pieces, bytes = {}, 0
for _, piece in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  bytes = bytes + #piece[2][2]
  if bytes > tonumber(ARGV[3]) then return {pieces, 1} end
  pieces[#pieces + 1] = {piece[1], piece[2][2]}
end
return {pieces, 0}";

/// What came of asking for an answer.
pub(super) enum Begun {
    /// It is there.
    Found(Found),
    /// It is not, and this server is to make it.
    Mine(Lease),
    /// It is not, and whoever has this lease makes it.
    Theirs(Lease),
}

/// What was read of what the holder of a lease told.
pub(super) struct Read {
    /// The beat of its lease, if it still has one.
    pub(super) beat: Option<u64>,
    /// Names and contents of the pieces.
    pub(super) pieces: Vec<(Vec<u8>, Vec<u8>)>,
    /// There is more than an answer may have.
    pub(super) too_large: bool,
}

impl Remote {
    /// The answer of a key, or whose turn it is to make it. Takes the configured timeout at most.
    pub(super) async fn begin(&self, key: &CacheKey, lease: Duration) -> Result<Begun, Failure> {
        let mine = Lease {
            token: Token::random(),
            beat: 0,
            period: lease,
        };
        let mut commands = Pipeline::new();
        commands
            .cmd("EVAL")
            .arg(BEGIN)
            .arg(1)
            .arg(names::answer(key))
            .arg(mine.value(&self.mac, key))
            .arg(milliseconds(lease))
            .arg(self.limits.value_bytes);
        let [Value::Array(reply)] = self.replies(&commands).await? else {
            return Err(Failure::Protocol);
        };
        if reply.is_empty() {
            return Ok(Begun::Mine(mine));
        }
        let Ok([value, remaining]) = <[Value; 2]>::try_from(reply) else {
            return Err(Failure::Protocol);
        };
        let holder = match &value {
            Value::BulkString(value) => Lease::read(&self.mac, key, value)?,
            _ => None,
        };
        match holder {
            // It was sent twice, because the connection broke before the first reply.
            Some(holder) if holder.token == mine.token => Ok(Begun::Mine(mine)),
            Some(holder) => Ok(Begun::Theirs(holder)),
            None => Ok(Begun::Found(self.found(key, value, remaining)?)),
        }
    }

    /// Renews a lease and adds a piece, if there is one, to what was told. False: the lease was lost.
    pub(super) async fn tell(
        &self,
        key: &CacheKey,
        renewed: Lease,
        piece: &[u8],
    ) -> Result<bool, Failure> {
        let mut commands = Pipeline::new();
        commands
            .cmd("EVAL")
            .arg(RENEW)
            .arg(1)
            .arg(names::answer(key))
            .arg(renewed.token.holder())
            .arg(renewed.value(&self.mac, key))
            .arg(milliseconds(renewed.period));
        if !piece.is_empty() {
            add_piece(&mut commands, key, renewed, piece);
        }
        match self.sent(&commands).await?.first() {
            Some(Value::Int(held)) => Ok(*held == 1),
            _ => Err(Failure::Protocol),
        }
    }

    /// Gives a lease up.
    pub(super) async fn release(&self, key: &CacheKey, token: Token) {
        let mut commands = Pipeline::new();
        add_release(&mut commands, key, token);
        self.write(key, &commands).await;
    }

    /// What was told after a piece.
    pub(super) async fn read(
        &self,
        key: &CacheKey,
        token: Token,
        after: &[u8],
        bytes: usize,
    ) -> Result<Read, Failure> {
        let mut commands = Pipeline::new();
        // The lease first: what was told before it ended is there afterwards.
        commands
            .cmd("GETRANGE")
            .arg(names::answer(key))
            .arg(0)
            .arg(LEASE_BYTES - 1)
            .cmd("EVAL")
            .arg(READ)
            .arg(1)
            .arg(names::log(key, token))
            .arg(after)
            .arg(READ_COUNT)
            .arg(bytes);
        let [Value::BulkString(holder), Value::Array(reply)] = self.replies(&commands).await?
        else {
            return Err(Failure::Protocol);
        };
        let Ok([Value::Array(pieces), Value::Int(too_large)]) = <[Value; 2]>::try_from(reply)
        else {
            return Err(Failure::Protocol);
        };
        let piece = |piece| match piece {
            Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::BulkString(name), Value::BulkString(content)]) => Ok((name, content)),
                _ => Err(Failure::Protocol),
            },
            _ => Err(Failure::Protocol),
        };
        // A value in its place that is none of ours says that the lease has ended; who looks for the answer finds it.
        let holder = Lease::read(&self.mac, key, &holder).unwrap_or_default();
        Ok(Read {
            beat: holder
                .filter(|holder| holder.token == token)
                .map(|holder| holder.beat),
            pieces: pieces.into_iter().map(piece).collect::<Result<_, _>>()?,
            too_large: too_large == 1,
        })
    }

    /// The replies to commands, none of which may be refused.
    async fn sent(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let reply = |reply| match reply {
            Value::ServerError(err) => Err(err.into()),
            reply => Ok(reply),
        };
        self.send(commands).await?.into_iter().map(reply).collect()
    }

    async fn replies<const N: usize>(&self, commands: &Pipeline) -> Result<[Value; N], Failure> {
        let replies = self.sent(commands).await?;
        replies.try_into().map_err(|_| Failure::Protocol)
    }
}

/// Adds a piece to what was told.
pub(super) fn add_piece(commands: &mut Pipeline, key: &CacheKey, held: Lease, piece: &[u8]) {
    let log = names::log(key, held.token);
    commands
        .cmd("XADD")
        .arg((&log, "*", "d", piece))
        .cmd("PEXPIRE")
        .arg(&log)
        .arg(milliseconds(LOG_TTL.max(2 * held.period)));
}

pub(super) fn add_release(commands: &mut Pipeline, key: &CacheKey, token: Token) {
    commands
        .cmd("EVAL")
        .arg(RELEASE)
        .arg(1)
        .arg(names::answer(key))
        .arg(token.holder());
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
