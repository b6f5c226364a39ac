//! Which device and precision a model gets.

use tch::{Cuda, Device, Kind};

use crate::engine::{DeviceSpec, EngineError, KvPrecision, Precision};

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
            if !tch::utils::has_cuda() {
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

/// Its name in [`BackendInfo`](crate::engine::BackendInfo).
pub(super) fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// The precision used where none was asked for.
pub(super) fn default_precision(device: Device) -> Precision {
    if device.is_cuda() {
        Precision::Bf16
    } else {
        Precision::Fp32
    }
}

/// How keys and values of this type are called.
pub(super) fn kv_precision(kind: Kind) -> KvPrecision {
    match kind {
        Kind::BFloat16 => KvPrecision::Bf16,
        Kind::Half => KvPrecision::Fp16,
        _ => KvPrecision::Fp32,
    }
}

/// libtorch's type of weights and arithmetic.
///
/// # Errors
/// [`EngineError::Device`] for the precisions that only the native engine has.
pub(super) fn kind(precision: Precision, device: Device) -> Result<Kind, EngineError> {
    match precision {
        Precision::Fp32 => Ok(Kind::Float),
        Precision::Bf16 => Ok(Kind::BFloat16),
        Precision::Fp16 => Ok(Kind::Half),
        Precision::Int8 | Precision::Int4 => Err(EngineError::Device {
            device: name(device),
            reason: format!(
                "{precision} runs in the native engine on the CPU only; use fp32, bf16 or fp16 here"
            ),
        }),
    }
}
