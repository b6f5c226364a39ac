//! Clearing the caches.

use code_explainer_cache::Selection;
use code_explainer_code::prompt::Strategy;
use code_explainer_code::prompt::language;

use crate::api::Shared;
use crate::error::Error;
use crate::identity;
use crate::proto::{CacheStore, ClearCacheRequest, ClearCacheResponse, ClearedLevel};

/// Removes what the request names, level by level.
pub(super) async fn clear(
    shared: &Shared,
    request: &ClearCacheRequest,
) -> Result<ClearCacheResponse, Error> {
    let stores = stores(request)?;
    let selections = selections(request, shared)?;
    let mut levels = Vec::new();
    for store in stores {
        let mut level = ClearedLevel {
            store: store.into(),
            ..ClearedLevel::default()
        };
        let mut there = false;
        for selection in &selections {
            let cleared = match store {
                CacheStore::Redis => shared.cache.clear_remote(selection).await,
                _ => shared.cache.clear_memory(selection).map(Ok),
            };
            there |= cleared.is_some();
            match cleared {
                Some(Ok(entries)) => level.entries += entries,
                Some(Err(error)) => {
                    tracing::warn!(%error, "could not clear redis");
                    level.error = error.to_string();
                    break;
                }
                None => {}
            }
        }
        if there {
            levels.push(level);
        }
    }
    Ok(ClearCacheResponse { levels })
}

fn stores(request: &ClearCacheRequest) -> Result<Vec<CacheStore>, Error> {
    let can = [CacheStore::Memory, CacheStore::Redis];
    let mut wanted: Vec<CacheStore> = Vec::new();
    for store in request.stores() {
        if !can.contains(&store) {
            let name = store.as_str_name();
            return Err(Error::invalid(
                "stores",
                format!("has {name}, expected CACHE_STORE_MEMORY or CACHE_STORE_REDIS"),
            ));
        }
        if !wanted.contains(&store) {
            wanted.push(store);
        }
    }
    Ok(if wanted.is_empty() {
        can.into()
    } else {
        wanted
    })
}

/// The selections that a request means together: one for each pair of a language and a strategy that its patterns name.
fn selections(request: &ClearCacheRequest, shared: &Shared) -> Result<Vec<Selection>, Error> {
    let explainer = shared.status.loaded().ok_or(Error::Loading)?;
    let secret = explainer.cache_secret.as_bytes();
    let salt = (request.tenant.as_deref()).map(|tenant| identity::salt(tenant, secret));
    let known =
        |names: Vec<&'static str>, field| move |pattern: &str| named(pattern, &names, field);
    let strategies: Vec<_> = Strategy::ALL.iter().map(|s| s.as_str()).collect();
    let languages = known(language::names().collect(), "language")(&request.language)?;
    let strategies = known(strategies, "strategy")(&request.strategy)?;
    let mut selections = Vec::new();
    for language in &languages {
        for strategy in &strategies {
            selections.push(Selection::new(
                secret,
                salt.as_deref(),
                language.as_deref(),
                strategy.as_deref(),
            ));
        }
    }
    Ok(selections)
}

/// The names that a pattern means; `None` among them: any.
fn named(pattern: &str, known: &[&str], field: &'static str) -> Result<Vec<Option<String>>, Error> {
    if pattern.is_empty() || pattern == "*" {
        return Ok(vec![None]);
    }
    if !pattern.contains(['*', '?']) {
        // A client may have named a language that is not known here.
        return Ok(vec![Some(pattern.to_owned())]);
    }
    let found: Vec<_> = (known.iter())
        .filter(|name| matches(pattern.as_bytes(), name.as_bytes()))
        .map(|name| Some((*name).to_owned()))
        .collect();
    if found.is_empty() {
        let problem = format!(
            "is a pattern that no name matches; known: {}",
            known.join(", ")
        );
        return Err(Error::invalid(field, problem));
    }
    Ok(found)
}

/// `*` is any bytes, `?` one. A pattern with many stars costs at most the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit: its place, and the text that it has taken.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    (p, t) = (at + 1, taken + 1);
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names() {
        let known = ["c", "c++", "java", "javascript"];
        let of = |pattern| named(pattern, &known, "language");
        let some = |names: &[&str]| Ok(names.iter().map(|n| Some((*n).to_owned())).collect());
        assert_eq!(of(""), Ok(vec![None]));
        assert_eq!(of("*"), Ok(vec![None]));
        assert_eq!(of("klingon"), some(&["klingon"]));
        assert_eq!(of("c*"), some(&["c", "c++"]));
        assert_eq!(of("?"), some(&["c"]));
        assert_eq!(of("*a*a*"), some(&["java", "javascript"]));
        assert_eq!(of("j*script"), some(&["javascript"]));
        assert!(of("x*").is_err());
    }
}
