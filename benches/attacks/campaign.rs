//! One attack on one server: an idle phase, the attack, and what is left of it afterwards.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::certificates::Files;
use crate::neighbour::{Asks, Neighbour, Seen};
use crate::numbers::mean_between;
use crate::probes::{self, Probe};
use crate::process::Process;
use crate::stage::{Stage, Told};
use crate::subject::{Authorities, Door, Keys, NEIGHBOUR, Setup, Subject};

/// How long the idle server is measured.
const IDLE: Duration = Duration::from_secs(10);
/// How long an attack may take to prepare.
const PREPARATION: Duration = Duration::from_secs(90);
/// How long the server has to be itself again.
const AFTERMATH: Duration = Duration::from_secs(15);
/// A server that takes less of a core than this is idle.
const IDLE_CORES: f64 = 0.1;
/// Memory is back when no more than this is left of what came.
const LEFT_BYTES: u64 = 16 << 20;

/// What an attack does, from its preparation on. It calls [`Stage::ready`] once, and may go on for as long as it is let.
pub(crate) type Run = fn(Stage) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// An attack, and what it must not do.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) setup: Setup,
    pub(crate) asks: Asks,
    /// How long it goes on.
    pub(crate) time: Duration,
    /// The most memory that it may cost the server, in bytes.
    pub(crate) memory: u64,
    pub(crate) run: Run,
}

/// Bytes that the server had in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Before the attack.
    pub(crate) before: u64,
    /// At its peak, beyond that.
    pub(crate) more: u64,
    /// What was left of it at the end, beyond that.
    pub(crate) left: u64,
}

/// What was seen of it.
pub(crate) struct Outcome {
    pub(crate) idle: Seen,
    pub(crate) attacked: Seen,
    /// The mean time of a step of the engine, in milliseconds.
    pub(crate) step_ms: f64,
    pub(crate) probes: probes::All,
    /// Of the server, while it was attacked, with the seconds that this took.
    pub(crate) cpu: (f64, f64),
    pub(crate) memory: Memory,
    /// When it was idle again, in seconds; `None`: it was not.
    pub(crate) idle_after: Option<f64>,
    /// When its memory was back, in seconds; `None`: it was not.
    pub(crate) memory_after: Option<f64>,
    pub(crate) told: Told,
    /// The server ended, or the attack could not go on.
    pub(crate) failure: Option<String>,
}

impl Attack {
    /// Starts a server, attacks it, and ends it.
    pub(crate) fn on(&self, program: &Path, keys: &Keys, measuring: &Runtime) -> Result<Outcome> {
        let (files, authorities) = (Files::new(), Authorities::new());
        let mut subject = Subject::start(program, &self.setup, &files, keys, &authorities)?;
        let addresses = (subject.grpc, subject.http);
        let stage = Stage::new(addresses, files, keys.clone(), authorities);
        let attackers = attackers()?;
        let attack = attackers.spawn((self.run)(stage.clone()));
        let measured = measuring.block_on(self.measure(&mut subject, &stage, attack));
        // What is left of the attack: tasks that it has spawned, and their connections.
        attackers.shutdown_timeout(Duration::from_secs(1));
        let mut outcome = measured?;
        measuring.block_on(aftermath(subject.process, &mut outcome));
        Ok(outcome)
    }

    async fn measure(
        &self,
        subject: &mut Subject,
        stage: &Stage,
        mut attack: JoinHandle<Result<()>>,
    ) -> Result<Outcome> {
        let (process, addresses) = (subject.process, (subject.grpc, subject.http));
        let client = match self.setup.door {
            Door::Keys => stage.client(stage.token(NEIGHBOUR))?,
            Door::Open => stage.client("")?,
            Door::Certificates => stage.certified_client(&stage.authorities().of_neighbour)?,
        };
        let mut neighbour = Neighbour::new(client, self.asks);
        tokio::select! {
            () = stage.prepared() => {}
            early = &mut attack => {
                early?.context("the attack could not be prepared")?;
                anyhow::bail!("the attack ended while it was prepared");
            }
            () = sleep(PREPARATION) => anyhow::bail!("the attack was not prepared in {PREPARATION:?}"),
        }
        neighbour.warm_up().await?;
        let idle = neighbour.during(IDLE).await;

        let steps = steps(addresses.1).await;
        process.forget_peak()?;
        let (before, cpu) = (process.resident()?, process.cpu_seconds()?);
        let began = Instant::now();
        stage.begin();
        let watched = self.probes();
        let (attacked, probes, failure) = tokio::join!(
            neighbour.during(self.time),
            probes::during(watched, addresses, self.time),
            self.attacked(attack),
        );
        let seconds = began.elapsed().as_secs_f64();
        let ended = subject
            .ended()
            .map(|end| format!("the server ended: {end}"));
        // Of a server that has ended there is nothing more to be known.
        let peak = process.peak().unwrap_or(before);
        let used = process.cpu_seconds().unwrap_or(cpu);
        let told = stage.told();
        let step = steps.zip(self::steps(addresses.1).await);
        let step = step.and_then(|(before, after)| mean_between(before, after));
        Ok(Outcome {
            step_ms: told.step_ms.or(step.map(|s| s * 1e3)).unwrap_or_default(),
            idle,
            attacked,
            probes,
            cpu: (used - cpu, seconds),
            memory: Memory {
                before,
                more: peak.saturating_sub(before),
                left: 0,
            },
            idle_after: None,
            memory_after: None,
            told,
            failure: ended.or(failure),
        })
    }

    /// Lets the attack go on for its time, and ends it; why it could not go on, if so.
    async fn attacked(&self, mut attack: JoinHandle<Result<()>>) -> Option<String> {
        let ended = timeout(self.time, &mut attack).await;
        attack.abort();
        let failed = |error: &dyn std::fmt::Display| Some(format!("the attack failed: {error:#}"));
        match ended {
            // Some have no end.
            Err(_) | Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => failed(&error),
            Ok(Err(error)) => failed(&error),
        }
    }

    /// gRPC health is not asked where it would need a certificate.
    fn probes(&self) -> &'static [Probe] {
        match self.setup.door {
            Door::Certificates => &Probe::ALL[..2],
            Door::Keys | Door::Open => &Probe::ALL,
        }
    }
}

/// Threads for the attack that stand back when others want to run: an attacker's machine is not the server's.
fn attackers() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
            // Without it the attacker only takes more of the cores.
            let _ = std::process::Command::new("renice")
                .args(["-n", "10", "-p", &thread])
                .stdout(std::process::Stdio::null())
                .status();
        })
        .build()
}

/// Waits until the server is itself again, and notes when. It is looked at from outside: to ask it would be work.
async fn aftermath(process: Process, outcome: &mut Outcome) {
    const LOOK: Duration = Duration::from_millis(500);
    let began = Instant::now();
    let mut last = process.cpu_seconds().ok();
    while began.elapsed() < AFTERMATH
        && (outcome.idle_after.is_none() || outcome.memory_after.is_none())
    {
        let looked = Instant::now();
        if let Ok(resident) = process.resident() {
            outcome.memory.left = resident.saturating_sub(outcome.memory.before);
        }
        if outcome.memory.left <= LEFT_BYTES && outcome.memory_after.is_none() {
            outcome.memory_after = Some(began.elapsed().as_secs_f64());
        }
        sleep(LOOK).await;
        let now = process.cpu_seconds().ok();
        let cores = last
            .zip(now)
            .map(|(last, now)| (now - last) / looked.elapsed().as_secs_f64());
        last = now;
        if cores.is_some_and(|cores| cores < IDLE_CORES) && outcome.idle_after.is_none() {
            outcome.idle_after = Some(looked.duration_since(began).as_secs_f64());
        }
    }
}

/// Sum and count of the engine's steps.
async fn steps(http: std::net::SocketAddr) -> Option<(f64, f64)> {
    const STEPS: &str = "code_explainer_step_duration_seconds";
    let page = timeout(Duration::from_secs(5), probes::get(http, "/metrics")).await;
    let page = page.ok()?.ok()?;
    let of = |what: &str| {
        let line = page
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{STEPS}_{what} ")));
        line?.trim().parse::<f64>().ok()
    };
    of("sum").zip(of("count"))
}
