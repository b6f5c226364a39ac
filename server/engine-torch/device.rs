//! Which device and precision a model gets.

use code_explainer_engine::{DeviceSpec, EngineError, KvPrecision, Precision};
use tch::{Cuda, Device, Kind};

use super::linear::Storage;

/// The device that was asked for, if it is there.
///
/// # Errors
/// [`EngineError::Device`] for a CUDA device that libtorch does not see.
pub(super) fn pick(spec: DeviceSpec) -> Result<Device, EngineError> {
    match spec {
        DeviceSpec::Cpu => Ok(Device::Cpu),
        DeviceSpec::Auto if Cuda::is_available() => Ok(Device::Cuda(0)),
        DeviceSpec::Auto => Ok(Device::Cpu),
        DeviceSpec::Cuda(number) => {
            let unavailable = |reason| EngineError::Device {
                device: spec.to_string(),
                reason,
            };
            // `has_cuda` asks for a device; this asks whether the library is there.
            if !tch::utils::has_cudart() {
                return Err(unavailable(
                    "this libtorch was built without CUDA, or its CUDA library was not linked; use device cpu or a \
                     CUDA build of libtorch"
                        .to_owned(),
                ));
            }
            if !Cuda::is_available() {
                return Err(unavailable(
                    "libtorch finds no CUDA driver or no device; does nvidia-smi list one?"
                        .to_owned(),
                ));
            }
            let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
            if number >= count {
                let devices = if count == 1 { "device" } else { "devices" };
                return Err(unavailable(format!(
                    "there is only {count} CUDA {devices}, numbered from 0"
                )));
            }
            Ok(Device::Cuda(number))
        }
    }
}

/// Its name in [`BackendInfo`](code_explainer_engine::BackendInfo).
pub(super) fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// The precision that was asked for; where none was, the device's own.
pub(super) fn precision(asked: Option<Precision>, device: Device) -> Precision {
    asked.unwrap_or(if device.is_cuda() {
        Precision::Bf16
    } else {
        Precision::Fp32
    })
}

/// How keys and values of this type are called.
pub(super) fn kv_precision(kind: Kind) -> KvPrecision {
    match kind {
        Kind::BFloat16 => KvPrecision::Bf16,
        Kind::Half => KvPrecision::Fp16,
        _ => KvPrecision::Fp32,
    }
}

/// libtorch's type of activations, and how the matrices of linear layers are stored.
///
/// Beside weights in 8 and 4 bits activations are the device's own.
pub(super) fn arithmetic(precision: Precision, device: Device) -> (Kind, Storage) {
    let own = if device.is_cuda() {
        Kind::BFloat16
    } else {
        Kind::Float
    };
    match precision {
        Precision::Fp32 => (Kind::Float, Storage::Float),
        Precision::Bf16 => (Kind::BFloat16, Storage::Float),
        Precision::Fp16 => (Kind::Half, Storage::Float),
        Precision::Int8 => (own, Storage::Int8),
        Precision::Int4 => (own, Storage::Int4),
    }
}
