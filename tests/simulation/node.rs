//! A server of the world: what it is set to, how it lives and dies, and what has to be true of it.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use code_explainer::access::rates::Rate;
use code_explainer::api::Shared;
use code_explainer::config::{Command, Config};
use code_explainer::metrics::Snapshot;
use code_explainer::model::Model;
use code_explainer::run::RunError;
use code_explainer::{ServerIo, run_on};
use code_explainer_engine::Backend;
use code_explainer_engine::fake::{FakeBackend, FakeControl};
use code_explainer_host::machine::{Durations, Machine};
use code_explainer_scheduler::{Gauges, Loader, Weights};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::net::Net;
use crate::oracle::CONTEXT;
use crate::smollm;
use crate::tenants::{self, Tenants};
use crate::trace::note;
use crate::world::{below, between, milliseconds, once_in};

/// Tokens of a block of the fake engine's KV cache.
const BLOCK_TOKENS: usize = 16;
/// A step that takes longer hangs.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// And comes back before it has hung for this much longer.
const LONGEST_HANG: Duration = Duration::from_secs(20);
/// What a server may take to end beyond its grace and its drain: to tell what was given up, and to say goodbye.
const GOODBYES: Duration = Duration::from_secs(9);

/// What all servers of a world are set to.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    blocks: usize,
    engines: usize,
    pub(crate) tenants: Tenants,
    /// Trouble is to be had.
    pub(crate) storm: Arc<AtomicBool>,
}

impl Settings {
    /// As fate has it.
    pub(crate) fn draw(base: &Config) -> Self {
        let mut config = base.clone();
        let scheduler = &mut config.scheduler;
        scheduler.queue.items = between(4, 40) as usize;
        scheduler.queue.tokens = between(400, 8000) as usize;
        scheduler.queue.aging = milliseconds(10, 3000);
        scheduler.engine.step.sequences = between(1, 6) as usize;
        scheduler.engine.step.tokens = scheduler.engine.step.sequences + between(0, 120) as usize;
        scheduler.engine.speculation = once_in(2).into();
        scheduler.engine.prefix_cache = !once_in(4);
        scheduler.engine.target_itl = once_in(4).then(|| milliseconds(1, 30));
        scheduler.supervisor.step_timeout = STEP_TIMEOUT;
        scheduler.supervisor.ready_max_age = milliseconds(1000, 8000);
        config.stream_items = between(2, 16) as usize;
        let stream = &mut config.stream;
        stream.slow_reader_timeout = milliseconds(400, 4000);
        stream.single_flight = !once_in(4);
        stream.code_bytes = 4096;
        stream.max_age = if once_in(3) {
            Duration::ZERO
        } else {
            milliseconds(500, 12_000)
        };
        stream.resume.ttl = if once_in(5) {
            Duration::ZERO
        } else {
            milliseconds(100, 8000)
        };
        stream.resume.sessions = between(1, 8) as usize;
        stream.resume.bytes = between(1, 8000) as usize;
        config.request.code_bytes = 1024;
        config.cache.size = if once_in(2) { 0 } else { between(1, 64) };
        config.cache.ttl = milliseconds(1000, 20_000);
        config.shutdown_grace = milliseconds(0, 1500);
        config.drain_timeout = milliseconds(0, 4000);
        let tenants = Tenants::draw(base);
        if tenants.names.is_empty() {
            config.access.book = None;
        }
        if once_in(3) {
            let shares = (tenants.names)
                .iter()
                .map(|name| (name.to_string(), between(1, 4) as f64));
            scheduler.queue.weights = Weights(shares.collect());
        }
        config.access.allowance.items = once_in(6).then(|| Rate {
            amount: NonZeroU32::new(between(2, 20) as u32).expect("at least two"),
            per: milliseconds(500, 3000),
        });
        Self {
            config,
            blocks: between((CONTEXT / BLOCK_TOKENS) as u64, 96) as usize,
            engines: if once_in(4) { 2 } else { 1 },
            tenants,
            storm: Arc::new(AtomicBool::new(true)),
        }
    }

    /// What those who do not say otherwise are set to. `book` is where the servers find their tenants.
    pub(crate) fn base(book: &Path) -> Config {
        tenants::write_all(book);
        let book = book.to_str().expect("UTF-8");
        let arguments = [
            "server",
            "serve",
            "--cache-secret",
            "of the simulation",
            "--auth-file",
            book,
        ];
        match Command::from_args(arguments.map(Into::into)) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{other:?} is not what was written"),
        }
    }
}

/// How long work takes.
struct Pace {
    storm: Arc<AtomicBool>,
    /// Milliseconds of a step at most.
    slowest: u64,
}

impl Durations for Pace {
    fn computation(&self) -> Duration {
        milliseconds(0, 6)
    }

    fn load(&self) -> Duration {
        milliseconds(0, 400)
    }

    fn step(&self) -> Duration {
        if self.storm.load(Ordering::Relaxed) && once_in(500) {
            let hangs = STEP_TIMEOUT + milliseconds(100, LONGEST_HANG.as_millis() as u64);
            note!("an engine hangs for {hangs:?}");
            return hangs;
        }
        milliseconds(1, self.slowest)
    }
}

/// A server from its start to its end.
pub(crate) struct Life {
    name: String,
    settings: Settings,
    pub(crate) shared: Arc<Shared>,
    engine: Arc<FakeControl>,
    harmed: AtomicBool,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Result<(), RunError>>,
}

impl Life {
    pub(crate) fn begin(name: &str, net: &Net, settings: &Settings) -> Self {
        note!("{name} starts");
        let mut config = settings.config.clone();
        config.replica = name.to_owned();
        let shared = Shared::new(&config).expect("its parts");
        let engine = Arc::new(FakeControl::default());
        let blocks = settings.blocks;
        let loaders = (0..settings.engines).map(|_| {
            let control = engine.clone();
            let load = move || {
                let vocabulary = smollm::text().vocabulary_size();
                let control = control.clone();
                let backend =
                    FakeBackend::steered(vocabulary, CONTEXT, blocks, BLOCK_TOKENS, control);
                Ok(Box::new(backend) as Box<dyn Backend>)
            };
            Box::new(load) as Loader
        });
        let loaders: Vec<Loader> = loaders.collect();
        let open = move || {
            Ok(Model {
                text: smollm::text().clone(),
                digest: "fake".into(),
                backends: loaders,
                step: None,
            })
        };
        let edges = ServerIo {
            grpc: net.listen(name),
            http: None,
            machine: Machine::OneThread(Arc::new(Pace {
                storm: settings.storm.clone(),
                slowest: between(1, 25),
            })),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::spawn(run_on(edges, shared.clone(), config, open, shutdown));
        Self {
            name: name.to_owned(),
            settings: settings.clone(),
            shared,
            engine,
            harmed: AtomicBool::new(false),
            stop: Some(stop),
            ended,
        }
    }

    /// It ends at once, wherever it is.
    pub(crate) fn crash(self, net: &Net) {
        note!("{} crashes", self.name);
        net.take_away(&self.name);
        self.ended.abort();
        // Of the rest of its process, which lives on where nobody sees it, nothing may come back.
        if let Some(explainer) = self.shared.status.loaded() {
            explainer.scheduler.stop();
        }
        self.shared.status.closing.cancel();
    }

    /// It ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }

    /// As SIGTERM: it ends in time, and nothing is left of its items.
    pub(crate) async fn terminate(mut self, net: &Net) {
        note!("{} is asked to end", self.name);
        let asked = Instant::now();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let config = &self.settings.config;
        let most = config.shutdown_grace + config.drain_timeout + GOODBYES;
        let ended = timeout(most, &mut self.ended).await;
        let took = asked.elapsed();
        note!("{} has ended after {took:?}", self.name);
        net.take_away(&self.name);
        match ended {
            // An engine that hangs finds out when it comes back.
            Ok(Ok(Ok(()))) => self.becomes_empty(STEP_TIMEOUT + LONGEST_HANG).await,
            // One that needed too many restarts ends by itself.
            Ok(Ok(Err(error))) if error.to_string().contains("was started again") => {}
            // Nor does one begin whose first step goes wrong.
            Ok(Ok(Err(RunError::Model(_)))) if self.harmed.load(Ordering::Relaxed) => {}
            Ok(other) => panic!("{} ended with {other:?}", self.name),
            Err(_) => panic!("{} did not end within {most:?}", self.name),
        }
    }

    /// What has to be true at any time.
    pub(crate) fn holds(&self) {
        let Some(gauges) = self.gauges() else { return };
        let scheduler = &self.settings.config.scheduler;
        let (queued, most) = (gauges.queued(), scheduler.queue.items);
        assert!(queued <= most, "{queued} wait where {most} may");
        let (used, total) = (gauges.blocks_used(), gauges.blocks_total());
        assert!(used + gauges.blocks_idle() <= total, "{used} of {total}");
        let items = self.shared.status.items.len();
        note!(
            "{} has {items} items, {queued} wait, {used} blocks",
            self.name
        );
    }

    /// The next steps go wrong.
    async fn harm(&self) {
        self.harmed.store(true, Ordering::Relaxed);
        match below(3) {
            0 => self.engine.fail_next_step(),
            1 => self.engine.panic_in_next_step(),
            _ => {
                self.engine.limit_rows(Some(below(8) as usize));
                sleep(milliseconds(10, 500)).await;
                self.engine.limit_rows(None);
            }
        }
    }

    fn gauges(&self) -> Option<&Gauges> {
        let explainer = self.shared.status.loaded()?;
        Some(explainer.scheduler.gauges())
    }

    /// What items and streams hold has been given back.
    fn is_empty(&self) {
        let left = self.left();
        assert!(left.is_empty(), "{} still has {left:?}", self.name);
    }

    /// Waits until all that items and streams hold has been given back.
    pub(crate) async fn becomes_empty(&self, within: Duration) {
        let empty = async {
            while !self.left().is_empty() {
                sleep(Duration::from_millis(250)).await;
            }
        };
        if timeout(within, empty).await.is_err() {
            self.is_empty();
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let items = self.shared.status.items.len();
        if items > 0 {
            left.push(format!("{items} items"));
        }
        let Some(gauges) = self.gauges() else {
            return left;
        };
        let text = self.shared.metrics.render(&Snapshot {
            gauges,
            cache: &self.shared.cache.stats(),
            phase: self.shared.status.phase(),
            memory: &[],
        });
        let held = [
            "code_explainer_streams_open ",
            "code_explainer_streams_detached ",
            "code_explainer_items_parked ",
            "code_explainer_queue_depth ",
            "code_explainer_running_sequences ",
            "code_explainer_kv_blocks{state=\"used\"} ",
        ];
        let lines = text.lines();
        let holds = |line: &&str| {
            held.iter()
                .any(|name| line.starts_with(name) && !line.ends_with(" 0"))
        };
        left.extend(lines.filter(holds).map(str::to_owned));
        left
    }
}

/// Has a server live and die until the storm is over, and then live on until nobody needs it. Gives its last life.
pub(crate) async fn operate(
    name: String,
    net: Net,
    settings: Settings,
    done: CancellationToken,
) -> Life {
    let storm = || settings.storm.load(Ordering::Relaxed);
    loop {
        let life = Life::begin(&name, &net, &settings);
        let until = Instant::now() + milliseconds(500, 15_000);
        let dies = below(4);
        while storm() && Instant::now() < until && !life.has_ended() {
            sleep(milliseconds(1, 400)).await;
            life.holds();
            if once_in(12) {
                life.harm().await;
            }
        }
        if !storm() {
            while !life.has_ended() && !done.is_cancelled() {
                sleep(Duration::from_millis(250)).await;
                life.holds();
            }
            if !life.has_ended() {
                return life;
            }
        }
        match dies {
            _ if life.has_ended() => life.terminate(&net).await,
            0 | 1 => life.crash(&net),
            2 => life.terminate(&net).await,
            _ => {
                // Nobody new comes any more.
                net.shut(&name);
                sleep(milliseconds(0, 3000)).await;
                life.terminate(&net).await;
            }
        }
        sleep(milliseconds(0, 2500)).await;
    }
}
