//! `AdminService`: how the server fares.

use std::sync::Arc;
use std::time::Duration;

use code_explainer_cache::Level;
use code_explainer_host::memory;
use tonic::{Request, Response, Status, Streaming};

use crate::api::admin_cache::microseconds;
use crate::api::caller::Caller;
use crate::api::convert::milliseconds;
use crate::api::inbound::Inbound;
use crate::api::{Shared, admin_cache, admin_clear, admin_warm, corpus};
use crate::error::Error;
use crate::explain::Explainer;
use crate::metrics::{ItemTotals, StepTotals};
use crate::proto::admin_service_server::AdminService;
use crate::proto::{
    AddDocumentsRequest, BatchSection, CacheSection, ClearCacheRequest, ClearCacheResponse,
    GetCacheStatsRequest, GetCacheStatsResponse, GetPerformanceReportRequest,
    GetPerformanceReportResponse, ListDocumentsRequest, ListDocumentsResponse, MemorySection,
    ModelSection, RemoveDocumentsRequest, RemoveDocumentsResponse, RequestSection,
    WarmCacheRequest,
};

/// The service.
pub(super) struct AdminApi {
    shared: Arc<Shared>,
}

impl AdminApi {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn cache(&self) -> CacheSection {
        let stats = self.shared.cache.stats();
        let memory = self.shared.cache.level(Level::Memory);
        let times = memory.and_then(|memory| memory.times);
        CacheSection {
            memory_entries: stats.memory_entries,
            memory_bytes: stats.memory_bytes,
            memory_hits: stats.memory_hits,
            redis_hits: stats.redis_hits,
            misses: stats.misses,
            hit_ratio: stats.hit_ratio,
            redis_errors: stats.redis_errors,
            redis_configured: stats.redis_configured,
            memory_evictions: admin_cache::evictions(&stats.memory_evictions),
            memory_mean_access_us: times.map_or(0.0, |times| microseconds(times.mean)),
            memory_p99_access_us: times.map_or(0.0, |times| microseconds(times.p99)),
            memory_policy: (stats.memory_policy)
                .map(|policy| policy.as_str().into())
                .unwrap_or_default(),
        }
    }

    fn batches(explainer: &Explainer, totals: &StepTotals) -> BatchSection {
        let max = explainer.options.engine.step.sequences;
        let mean = ratio(totals.sequences as f64, totals.steps as f64);
        BatchSection {
            steps: totals.steps,
            mean_size: mean,
            max_size: max as u32,
            efficiency: mean / max as f64,
            generated_tokens: totals.generated_tokens,
            prefill_tokens: totals.prefill_tokens,
            tokens_per_second: ratio(totals.generated_tokens as f64, totals.time.as_secs_f64()),
            engines: explainer.scheduler.gauges().engines() as u32,
        }
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    type WarmCacheStream = admin_warm::Progress;

    async fn get_cache_stats(
        &self,
        _: Request<GetCacheStatsRequest>,
    ) -> Result<Response<GetCacheStatsResponse>, Status> {
        Ok(Response::new(admin_cache::stats(&self.shared).await))
    }

    async fn clear_cache(
        &self,
        request: Request<ClearCacheRequest>,
    ) -> Result<Response<ClearCacheResponse>, Status> {
        let cleared = admin_clear::clear(&self.shared, request.get_ref()).await?;
        tracing::info!(levels = ?cleared.levels, "the cache was cleared");
        Ok(Response::new(cleared))
    }

    async fn warm_cache(
        &self,
        request: Request<Streaming<WarmCacheRequest>>,
    ) -> Result<Response<Self::WarmCacheStream>, Status> {
        self.shared.status.explainer()?;
        let caller = Caller::of(&request)?;
        let progress = admin_warm::warm(
            self.shared.clone(),
            caller,
            Inbound::of(request, &self.shared),
        );
        Ok(Response::new(progress))
    }

    type AddDocumentsStream = corpus::Outcomes;

    async fn add_documents(
        &self,
        request: Request<Streaming<AddDocumentsRequest>>,
    ) -> Result<Response<Self::AddDocumentsStream>, Status> {
        Ok(corpus::add(
            &self.shared,
            Inbound::of(request, &self.shared),
        ))
    }

    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        corpus::list(&self.shared, request.into_inner()).await
    }

    async fn remove_documents(
        &self,
        request: Request<RemoveDocumentsRequest>,
    ) -> Result<Response<RemoveDocumentsResponse>, Status> {
        corpus::remove(&self.shared, request.into_inner()).await
    }

    async fn get_performance_report(
        &self,
        _: Request<GetPerformanceReportRequest>,
    ) -> Result<Response<GetPerformanceReportResponse>, Status> {
        let shared = &self.shared;
        let explainer = shared.status.loaded().ok_or(Error::Loading)?;
        let (model, gauges) = (&explainer.model, explainer.scheduler.gauges());
        Ok(Response::new(GetPerformanceReportResponse {
            model: Some(ModelSection {
                name: model.model.clone(),
                device: model.device.clone(),
                precision: model.precision.as_str().into(),
                parameters: model.parameters,
            }),
            memory: Some(MemorySection {
                resident_bytes: memory::resident_bytes(),
                total_bytes: memory::limit_bytes(),
                weights_bytes: model.weights_bytes,
                kv_pool_bytes: model.kv_pool_bytes,
                kv_blocks_used: gauges.blocks_used() as u64,
                kv_blocks_total: gauges.blocks_total() as u64,
            }),
            cache: Some(self.cache()),
            requests: Some(requests(&shared.metrics.item_totals(), gauges)),
            batches: Some(Self::batches(explainer, &shared.metrics.step_totals())),
            uptime_seconds: shared.started.elapsed().as_secs_f64(),
        }))
    }
}

fn requests(totals: &ItemTotals, gauges: &code_explainer_scheduler::Gauges) -> RequestSection {
    let [answered, cancelled, failed] = totals.ended;
    let total = answered + cancelled + failed;
    let ms = |us: f64| milliseconds(Duration::from_micros(us as u64));
    let quantile = |q| ms(totals.total_us.value_at_quantile(q) as f64);
    RequestSection {
        total,
        answered,
        failed,
        cancelled,
        error_ratio: ratio(failed as f64, total as f64),
        mean_ms: ms(totals.total_us.mean()),
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        p99_ms: quantile(0.99),
        time_to_first_token_p50_ms: ms(totals.first_token_us.value_at_quantile(0.5) as f64),
        queued: gauges.queued() as u64,
        running: gauges.running() as u64,
    }
}

/// 0 where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
