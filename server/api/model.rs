//! `ModelService`: what is being served.

use std::sync::Arc;

use code_explainer_code::prompt::Strategy;
use code_explainer_code::prompt::language::Language;
use tonic::{Request, Response, Status};

use crate::api::Shared;
use crate::error::Error;
use crate::explain::Explainer;
use crate::proto::model_service_server::ModelService;
use crate::proto::{GetModelRequest, GetModelResponse, Limits};
use crate::request::{MAX_ID_BYTES, MAX_STOP_BYTES, MAX_STOPS};

/// The service.
pub(super) struct ModelApi {
    shared: Arc<Shared>,
}

impl ModelApi {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn limits(&self, explainer: &Explainer) -> Limits {
        let (s, options, model) = (&self.shared, &explainer.options, &explainer.model);
        Limits {
            max_code_bytes: s.request.code_bytes as u32,
            max_new_tokens: s.request.max_new_tokens as u32,
            default_max_new_tokens: s.request.default_max_new_tokens as u32,
            batch_size: options.engine.step.sequences as u32,
            step_tokens: options.engine.step.tokens as u32,
            queue_items: options.queue.items as u32,
            stream_items: s.stream_items as u32,
            kv_cache_tokens: (model.blocks * model.block_tokens) as u64,
            max_id_bytes: MAX_ID_BYTES as u32,
            max_stop_strings: MAX_STOPS as u32,
            max_stop_bytes: MAX_STOP_BYTES as u32,
        }
    }
}

#[tonic::async_trait]
impl ModelService for ModelApi {
    async fn get_model(
        &self,
        _: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        let explainer = self.shared.status.loaded().ok_or(Error::Loading)?;
        let model = &explainer.model;
        Ok(Response::new(GetModelResponse {
            name: model.model.clone(),
            architecture: model.architecture.clone(),
            parameters: model.parameters,
            context_length: model.context_length as u32,
            precision: model.precision.as_str().into(),
            device: model.device.clone(),
            limits: Some(self.limits(explainer)),
            vocabulary: model.vocabulary as u32,
            strategies: Strategy::ALL.iter().map(|s| s.as_str().into()).collect(),
            outlined_languages: Language::ALL.iter().map(|l| l.as_str().into()).collect(),
            replica: self.shared.replica.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        }))
    }
}
