//! How much memory the process has and may have.

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// Resident memory of this process, in bytes; 0 where the system does not tell.
pub fn resident_bytes() -> u64 {
    let pid = Pid::from_u32(std::process::id());
    let Ok(mut system) = System::new() else {
        return 0;
    };
    let wanted = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, wanted);
    system.process(pid).map_or(0, sysinfo::Process::memory)
}

/// Memory of the machine, or of the container's limit where that is less, in bytes; 0 where the system does not
/// tell.
pub fn limit_bytes() -> u64 {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let wanted = RefreshKind::nothing().with_memory(memory);
    let Ok(system) = System::new_with_specifics(wanted) else {
        return 0;
    };
    let machine = system.total_memory();
    system
        .cgroup_limits()
        .map_or(machine, |limits| limits.total_memory.min(machine))
}
