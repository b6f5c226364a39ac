//! What each call's client may send, by the call's path: known before anything of it is read.

/// How many messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messages {
    /// None: there is no such call, so nothing of it is read.
    None,
    /// One, and then the end.
    One,
    /// Any number, for as long as the call lives.
    Many,
}

/// What a call's client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Takes {
    pub(super) messages: Messages,
    /// Bytes of each message at most.
    pub(super) bytes: usize,
    /// Messages may be compressed with gzip.
    pub(super) gzip: bool,
}

/// A probe: no more than the name of a service or a model. Whoever sends one need not show who they are.
const PROBE_BYTES: usize = 512;
/// A question: names, filters, pages. It is less than tonic's decoder begins with (`body::DECODER_BYTES`).
const QUESTION_BYTES: usize = 4096;

impl Takes {
    /// By the path of the call, where messages of the larger kind may have so many bytes.
    pub(super) fn of(path: &str, message_bytes: usize) -> Self {
        let takes = |messages, bytes| Self {
            messages,
            bytes,
            gzip: false,
        };
        match path {
            "/grpc.health.v1.Health/Check"
            | "/grpc.health.v1.Health/Watch"
            | "/inference.GRPCInferenceService/ServerLive"
            | "/inference.GRPCInferenceService/ServerReady" => takes(Messages::One, PROBE_BYTES),
            "/inference.GRPCInferenceService/ModelReady"
            | "/inference.GRPCInferenceService/ModelMetadata"
            | "/inference.GRPCInferenceService/ServerMetadata"
            | "/codeexplainer.v1.ModelService/GetModel"
            | "/codeexplainer.v1.AdminService/GetPerformanceReport"
            | "/codeexplainer.v1.AdminService/GetCacheStats"
            | "/codeexplainer.v1.AdminService/ClearCache"
            | "/codeexplainer.v1.AdminService/ListDocuments" => {
                takes(Messages::One, QUESTION_BYTES.min(message_bytes))
            }
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
                takes(Messages::Many, QUESTION_BYTES.min(message_bytes))
            }
            "/codeexplainer.v1.ExplainService/Explain"
            | "/codeexplainer.v1.ExplainService/Embed"
            | "/codeexplainer.v1.AdminService/RemoveDocuments"
            | "/inference.GRPCInferenceService/ModelInfer" => takes(Messages::One, message_bytes),
            "/codeexplainer.v1.ExplainService/ExplainStream"
            | "/codeexplainer.v1.AdminService/WarmCache"
            | "/codeexplainer.v1.AdminService/AddDocuments"
            | "/inference.GRPCInferenceService/ModelStreamInfer" => {
                takes(Messages::Many, message_bytes)
            }
            _ => takes(Messages::None, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::proto;

    /// Path and number of messages of every call that there is.
    fn served() -> Vec<(String, Messages)> {
        let sets = [
            proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut calls = Vec::new();
        for set in sets {
            let set = FileDescriptorSet::decode(set).expect("a descriptor set");
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        let path =
                            format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        let many = method.client_streaming();
                        calls.push((path, if many { Messages::Many } else { Messages::One }));
                    }
                }
            }
        }
        calls
    }

    #[test]
    fn every_call_that_is_served_is_known_and_no_other() {
        let calls = served();
        assert!(calls.len() > 15, "{calls:?}");
        for (path, messages) in calls {
            let takes = Takes::of(&path, 1 << 20);
            assert_eq!(takes.messages, messages, "{path}");
            assert!(takes.bytes > 0, "{path}");
        }
        for path in [
            "/",
            "",
            "//grpc.health.v1.Health/Check",
            "/codeexplainer.v1.ExplainService/Other",
        ] {
            assert_eq!(Takes::of(path, 1 << 20).messages, Messages::None, "{path}");
        }
    }

    #[test]
    fn only_what_carries_code_or_documents_may_be_large() {
        for (path, _) in served() {
            let large = ["Explain", "Embed", "Infer", "Warm", "Documents"];
            let may = large
                .iter()
                .any(|word| path.rsplit('/').next().is_some_and(|m| m.contains(word)));
            assert!(
                may || Takes::of(&path, 1 << 20).bytes <= QUESTION_BYTES,
                "{path}"
            );
        }
    }
}
