//! Interfaces of the capOS schema by name.

macro_rules! interfaces {
    ($($name:ident => $number:ident,)*) => {
        /// The interfaces capos-config has numbers for, with their names.
        pub const INTERFACES: &[(&str, u64)] = &[
            $((stringify!($name), capos_config::$number),)*
        ];
    };
}

interfaces! {
    AccountStoreManager => ACCOUNT_STORE_MANAGER_INTERFACE_ID,
    AccountStoreReader => ACCOUNT_STORE_READER_INTERFACE_ID,
    AuditLog => AUDIT_LOG_INTERFACE_ID,
    AuthorityBroker => AUTHORITY_BROKER_INTERFACE_ID,
    AuthorizedKeyStore => AUTHORIZED_KEY_STORE_INTERFACE_ID,
    BlockDevice => BLOCKDEVICE_INTERFACE_ID,
    BootPackage => BOOT_PACKAGE_INTERFACE_ID,
    CapabilityManager => CAPABILITY_MANAGER_INTERFACE_ID,
    Console => CONSOLE_INTERFACE_ID,
    CpuIsolationGrantMinter => CPU_ISOLATION_GRANT_MINTER_INTERFACE_ID,
    CpuIsolationLease => CPU_ISOLATION_LEASE_INTERFACE_ID,
    CpuIsolationPoolGrant => CPU_ISOLATION_POOL_GRANT_INTERFACE_ID,
    CredentialStore => CREDENTIAL_STORE_INTERFACE_ID,
    DeviceMmio => DEVICEMMIO_INTERFACE_ID,
    Directory => DIRECTORY_INTERFACE_ID,
    DmaBuffer => DMABUFFER_INTERFACE_ID,
    DmaPool => DMAPOOL_INTERFACE_ID,
    Endpoint => ENDPOINT_INTERFACE_ID,
    EntropySource => ENTROPY_SOURCE_INTERFACE_ID,
    File => FILE_INTERFACE_ID,
    FrameAllocator => FRAME_ALLOCATOR_INTERFACE_ID,
    HardwareAuditLog => HARDWARE_AUDIT_LOG_INTERFACE_ID,
    HardwareAuditReader => HARDWARE_AUDIT_READER_INTERFACE_ID,
    Interrupt => INTERRUPT_INTERFACE_ID,
    LogReader => LOG_READER_INTERFACE_ID,
    LogSink => LOG_SINK_INTERFACE_ID,
    Manual => MANUAL_INTERFACE_ID,
    MemoryObject => MEMORY_OBJECT_INTERFACE_ID,
    Namespace => NAMESPACE_INTERFACE_ID,
    NetworkManager => NETWORK_MANAGER_INTERFACE_ID,
    Nic => NIC_INTERFACE_ID,
    ParkBench => PARK_BENCH_INTERFACE_ID,
    ParkSpace => PARK_SPACE_INTERFACE_ID,
    Pipe => PIPE_INTERFACE_ID,
    ProcessHandle => PROCESS_HANDLE_INTERFACE_ID,
    ProcessSpawner => PROCESS_SPAWNER_INTERFACE_ID,
    ResourceProfileManager => RESOURCE_PROFILE_MANAGER_INTERFACE_ID,
    ResourceProfileReader => RESOURCE_PROFILE_READER_INTERFACE_ID,
    RestrictedLauncher => RESTRICTED_LAUNCHER_INTERFACE_ID,
    RestrictedShellLauncher => RESTRICTED_SHELL_LAUNCHER_INTERFACE_ID,
    SchedulingContext => SCHEDULING_CONTEXT_INTERFACE_ID,
    SchedulingPolicyCap => SCHEDULING_POLICY_CAP_INTERFACE_ID,
    SessionManager => SESSION_MANAGER_INTERFACE_ID,
    SharedParkSpace => SHARED_PARK_SPACE_INTERFACE_ID,
    SshGateway => SSH_GATEWAY_INTERFACE_ID,
    SshHostKey => SSH_HOST_KEY_INTERFACE_ID,
    SshTerminalFactory => SSH_TERMINAL_FACTORY_INTERFACE_ID,
    StdIO => STDIO_INTERFACE_ID,
    Store => STORE_INTERFACE_ID,
    SystemInfo => SYSTEM_INFO_INTERFACE_ID,
    TcpListenAuthority => TCP_LISTEN_AUTHORITY_INTERFACE_ID,
    TcpListener => TCP_LISTENER_INTERFACE_ID,
    TcpSocket => TCP_SOCKET_INTERFACE_ID,
    TerminalSession => TERMINAL_SESSION_INTERFACE_ID,
    ThreadControl => THREAD_CONTROL_INTERFACE_ID,
    ThreadHandle => THREAD_HANDLE_INTERFACE_ID,
    ThreadSpawner => THREAD_SPAWNER_INTERFACE_ID,
    Timer => TIMER_INTERFACE_ID,
    UdpSocket => UDP_SOCKET_INTERFACE_ID,
    UserSession => USER_SESSION_INTERFACE_ID,
    VirtualMemory => VIRTUAL_MEMORY_INTERFACE_ID,
    WallClock => WALL_CLOCK_INTERFACE_ID,
}

/// The number of the interface called `name`.
pub fn number(name: &str) -> Option<u64> {
    let found = INTERFACES.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| *number)
}

/// How to call an interface in messages: by name if it has one.
pub fn name(number: u64) -> String {
    let found = INTERFACES.iter().find(|(_, known)| *known == number);
    found.map_or_else(|| format!("{number:#018x}"), |(name, _)| (*name).into())
}

/// All names.
pub fn names() -> Vec<&'static str> {
    INTERFACES.iter().map(|(name, _)| *name).collect()
}
