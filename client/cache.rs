//! The server's caches.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tonic::Streaming;

use crate::proto::{
    CacheStore, ClearCacheRequest, ClearedLevel, GetCacheStatsRequest, WarmCacheRequest,
    WarmCacheResponse,
};
use crate::{CacheStats, Client, Error, Item};

/// Which answers to remove: those that agree in all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheClear {
    /// Where; empty: wherever they can be removed.
    pub stores: Vec<CacheStore>,
    /// Those of this tenant.
    pub tenant: Option<String>,
    /// Those of these languages: a name, or a pattern with `*` and `?`.
    pub language: Option<String>,
    /// Those of these strategies: a name, or a pattern with `*` and `?`.
    pub strategy: Option<String>,
}

impl Client {
    /// What the caches hold and did.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`].
    pub async fn cache_stats(&self) -> Result<CacheStats, Error> {
        let answer = (self.admin.clone())
            .get_cache_stats(GetCacheStatsRequest {})
            .await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| Error::from_status(&self.address, &status))
    }

    /// Removes answers from the caches, and says how many from each level.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`].
    pub async fn clear_cache(&self, what: CacheClear) -> Result<Vec<ClearedLevel>, Error> {
        let request = ClearCacheRequest {
            stores: what.stores.into_iter().map(i32::from).collect(),
            tenant: what.tenant,
            language: what.language.unwrap_or_default(),
            strategy: what.strategy.unwrap_or_default(),
        };
        let answer = self.admin.clone().clear_cache(request).await;
        answer
            .map(|answer| answer.into_inner().levels)
            .map_err(|status| Error::from_status(&self.address, &status))
    }

    /// Has items explained so that their answers are in the cache. Dropping the progress stops it.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`]; later failures come from the stream.
    pub async fn warm_cache(
        &self,
        items: impl Stream<Item = Item> + Send + 'static,
    ) -> Result<Warming, Error> {
        let requests = items.map(|item| WarmCacheRequest {
            item: Some(item.into()),
        });
        let answer = self.admin.clone().warm_cache(requests).await;
        let answer = answer.map_err(|status| Error::from_status(&self.address, &status))?;
        Ok(Warming {
            address: self.address.clone(),
            progress: answer.into_inner(),
        })
    }
}

/// The items of [`Client::warm_cache`] as they end.
#[derive(Debug)]
pub struct Warming {
    address: Arc<str>,
    progress: Streaming<WarmCacheResponse>,
}

impl Stream for Warming {
    type Item = Result<WarmCacheResponse, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.progress.poll_next_unpin(cx);
        next.map_err(|status| Error::from_status(&self.address, &status))
    }
}
