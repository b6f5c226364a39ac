//! What a process costs, by /proc.

use std::io;

/// Ticks of /proc's clock in a second: a constant of Linux.
const TICKS: f64 = 100.0;

/// Files that this process itself may have open.
pub(crate) fn open_files() -> io::Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_ascii_whitespace().next());
    match soft {
        Some("unlimited") => Ok(u64::MAX),
        soft => (soft.and_then(|soft| soft.parse().ok())).ok_or(io::ErrorKind::InvalidData.into()),
    }
}

/// A process to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Seconds that its threads have been on cores, in the kernel too.
    pub(crate) fn cpu_seconds(self) -> io::Result<f64> {
        let stat = std::fs::read_to_string(self.file("stat"))?;
        // The name comes in parentheses, and may have spaces.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |place: usize| {
            let word = rest.split_ascii_whitespace().nth(place);
            word.and_then(|word| word.parse::<f64>().ok())
        };
        let (user, system) = ticks(11).zip(ticks(12)).ok_or(io::ErrorKind::InvalidData)?;
        Ok((user + system) / TICKS)
    }

    /// Bytes in memory now.
    pub(crate) fn resident(self) -> io::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most bytes in memory since `forget_peak`.
    pub(crate) fn peak(self) -> io::Result<u64> {
        self.status("VmHWM:")
    }

    /// Lets the peak be what is in memory now.
    pub(crate) fn forget_peak(self) -> io::Result<()> {
        std::fs::write(self.file("clear_refs"), "5")
    }

    fn status(self, name: &str) -> io::Result<u64> {
        let status = std::fs::read_to_string(self.file("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 =
            (kib.and_then(|kib| kib.trim().parse().ok())).ok_or(io::ErrorKind::InvalidData)?;
        Ok(kib << 10)
    }

    fn file(self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0)
    }
}
