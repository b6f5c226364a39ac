//! Where engines run: one device, several, or parts of the CPU.

use std::fmt;
use std::str::FromStr;

use super::{EngineError, EngineOptions};

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// The part of the CPU that an engine has: the cores are dealt out evenly, and an engine that does not have all of them
/// stays on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuShare {
    /// Which part, from 0.
    pub index: usize,
    /// How many parts there are.
    pub parts: usize,
}

impl CpuShare {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, parts: 1 };

    /// The cores of this part, of those that the process may use.
    pub fn of<'a>(&self, cores: &'a [usize]) -> &'a [usize] {
        let bound = |part: usize| part * cores.len() / self.parts;
        &cores[bound(self.index)..bound(self.index + 1)]
    }
}

/// The engines to start: what `--device` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// An engine on each of the CUDA devices; on the CPU if there are none.
    All,
    /// An engine for each.
    Listed(Vec<DeviceSpec>),
}

impl Devices {
    /// Most engines that can be asked for.
    const MOST: usize = 64;

    /// The options of each engine, after the common ones.
    ///
    /// # Errors
    /// [`EngineError::Device`] where there are more engines for the CPU than cores.
    pub fn engines(
        &self,
        common: &EngineOptions,
        cuda_devices: usize,
        cores: usize,
    ) -> Result<Vec<EngineOptions>, EngineError> {
        let devices = match self {
            Self::Listed(devices) => devices.clone(),
            Self::All if cuda_devices == 0 => vec![DeviceSpec::Cpu],
            Self::All => (0..cuda_devices).map(DeviceSpec::Cuda).collect(),
        };
        let parts = devices.iter().filter(|d| **d == DeviceSpec::Cpu).count();
        if parts > 1 && parts > cores {
            return Err(EngineError::Device {
                device: self.to_string(),
                reason: format!("there are {parts} engines for {cores} cores"),
            });
        }
        let mut index = 0;
        let engines = devices.into_iter().map(|device| {
            let mut cpu_share = CpuShare::WHOLE;
            if device == DeviceSpec::Cpu {
                cpu_share = CpuShare { index, parts };
                index += 1;
            }
            EngineOptions {
                device,
                cpu_share,
                ..common.clone()
            }
        });
        Ok(engines.collect())
    }

    /// Whether a CUDA device is named.
    pub fn names_cuda(&self) -> bool {
        matches!(self, Self::Listed(devices) if devices.iter().any(|d| matches!(d, DeviceSpec::Cuda(_))))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Listed(devices) => {
                let names: Vec<_> = devices.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let unknown = |device: &str| {
            format!(
                "unknown device '{device}': expected auto, all, cpu, cpu:ENGINES, cuda, cuda:N, or a list such as cuda:0,cuda:1"
            )
        };
        match s {
            "auto" => return Ok(Self::Listed(vec![DeviceSpec::Auto])),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let mut devices = Vec::new();
        for device in s.split(',') {
            let number = |prefix| {
                let number = device.strip_prefix(prefix)?.strip_prefix(':')?;
                number.parse::<usize>().ok()
            };
            match device {
                "cpu" => devices.push(DeviceSpec::Cpu),
                "cuda" => devices.push(DeviceSpec::Cuda(0)),
                _ => match (number("cpu"), number("cuda")) {
                    (Some(engines @ 1..=Self::MOST), _) => {
                        devices.extend(std::iter::repeat_n(DeviceSpec::Cpu, engines));
                    }
                    (_, Some(number)) => devices.push(DeviceSpec::Cuda(number)),
                    _ => return Err(unknown(device)),
                },
            }
        }
        if devices.len() > Self::MOST {
            return Err(format!(
                "{} engines are more than {}",
                devices.len(),
                Self::MOST
            ));
        }
        let cuda = devices.iter().filter(|d| **d != DeviceSpec::Cpu);
        let mut cuda: Vec<_> = cuda.map(ToString::to_string).collect();
        cuda.sort_unstable();
        if let Some(twice) = cuda.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("device {} is named twice", twice[0]));
        }
        Ok(Self::Listed(devices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineKind;

    fn engines(
        devices: &str,
        cuda: usize,
        cores: usize,
    ) -> Result<Vec<(String, CpuShare)>, String> {
        let common = EngineOptions {
            engine: EngineKind::Auto,
            device: DeviceSpec::Auto,
            cpu_share: CpuShare::WHOLE,
            precision: None,
            kv_precision: None,
            kv_cache_tokens: 16,
            block_tokens: 16,
            threads: 0,
        };
        let devices: Devices = devices.parse()?;
        let engines = devices.engines(&common, cuda, cores);
        let engines = engines.map_err(|e| e.to_string())?;
        Ok(engines
            .into_iter()
            .map(|e| (e.device.to_string(), e.cpu_share))
            .collect())
    }

    fn names(devices: &str, cuda: usize) -> Vec<String> {
        let engines = engines(devices, cuda, 8).expect("valid");
        engines.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn devices_are_told_by_name_by_number_or_all_together() {
        assert_eq!(names("auto", 0), ["auto"]);
        assert_eq!(names("cpu", 2), ["cpu"]);
        assert_eq!(names("cuda", 2), ["cuda:0"]);
        assert_eq!(names("cuda:0,cuda:1", 2), ["cuda:0", "cuda:1"]);
        assert_eq!(names("all", 3), ["cuda:0", "cuda:1", "cuda:2"]);
        assert_eq!(names("all", 0), ["cpu"]);
        assert_eq!(names("cuda:1,cpu", 2), ["cuda:1", "cpu"]);
    }

    #[test]
    fn engines_on_the_cpu_share_its_cores() {
        let shares: Vec<_> = engines("cpu:3", 0, 8).expect("valid");
        let cores: Vec<usize> = (10..18).collect();
        let parts: Vec<_> = shares.iter().map(|(_, share)| share.of(&cores)).collect();
        assert_eq!(parts, [&[10, 11][..], &[12, 13, 14], &[15, 16, 17]]);
        assert_eq!(engines("cpu", 0, 8).expect("valid")[0].1, CpuShare::WHOLE);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            "",
            "gpu",
            "cpu:0",
            "cpu:x",
            "cpu:65",
            "cuda:-1",
            "cuda:1,",
            "auto,cpu",
            "cuda,cuda:0",
        ] {
            assert!(wrong.parse::<Devices>().is_err(), "{wrong}");
        }
        let error = engines("cpu:4", 0, 2).expect_err("too few cores");
        assert!(error.contains("4 engines for 2 cores"), "{error}");
    }
}
