//! Generates the bindings, compiles the shim and names the static libraries to link.
//!
//! Everything is linked statically, so that a switch agent, a load generator and an image's PID 1 contain the same
//! DPDK and an image needs no shared object. The library list is written out because pkg-config's static list of
//! Debian's package drags in every driver there is, with mlx5, ibverbs, pcap and systemd behind them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

/// Linked as a whole: drivers, buses and the mempool handler register themselves in constructors that nothing refers to.
const WHOLE: &[&str] = &[
    "bus_pci",
    "bus_vdev",
    "mempool_ring",
    "common_iavf",
    "ethdev",
    "net_virtio",
    "net_e1000",
    "net_iavf",
    "net_ixgbe",
    "net_nfp",
];

/// Drivers that a feature adds, linked as a whole too: the feature's name as Cargo tells it, and the libraries.
const FEATURES: &[(&str, &[&str])] = &[
    ("CARGO_FEATURE_SOFTWARE", &["net_vhost", "net_null", "net_ring", "net_tap", "net_af_packet", "net_memif"]),
    ("CARGO_FEATURE_ENA", &["net_ena"]),
    ("CARGO_FEATURE_BNXT", &["net_bnxt"]),
    (MLX5, &["bus_auxiliary", "common_mlx5", "net_mlx5"]),
];

/// The driver that works through one of the kernel's.
const MLX5: &str = "CARGO_FEATURE_MLX5";

/// What it speaks to the kernel with: users before what they use.
const VERBS: &[&str] = &["mlx5", "ibverbs", "nl-route-3", "nl-3"];

/// Linked as needed, users before what they use.
const PLAIN: &[&str] = &[
    "vhost",
    "gso",
    "security",
    "cryptodev",
    "dmadev",
    "hash",
    "rcu",
    "meter",
    "net",
    "mbuf",
    "mempool",
    "pci",
    "timer",
    "ring",
    "eal",
    "telemetry",
    "kvargs",
];

/// What the EAL and the drivers need of the system, linked statically too.
const SYSTEM: &[&str] = &["numa", "bsd", "md"];

const FUNCTIONS: &[&str] = &[
    "slim_.*",
    "rte_dev_name",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_eal_get_runtime_dir",
    "rte_eal_init",
    "rte_epoll_ctl",
    "rte_epoll_wait_interruptible",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rx_intr_ctl_q",
    "rte_eth_dev_rx_intr_disable",
    "rte_eth_dev_rx_intr_enable",
    "rte_eth_dev_set_mc_addr_list",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_find_next",
    "rte_eth_link_get_nowait",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_queue_setup",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_get_tsc_hz",
    "rte_mempool_avail_count",
    "rte_mempool_in_use_count",
    "rte_openlog_stream",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_pool_create",
    "rte_thread_register",
];

const TYPES: &[&str] = &["rte_mbuf", "rte_mempool", "rte_eth_.*", "rte_epoll_event", "rte_ether_addr"];

const VARIABLES: &[&str] = &[
    "RTE_ETH_LINK_.*",
    "RTE_ETH_MQ_.*",
    "RTE_ETH_NAME_MAX_LEN",
    "RTE_ETH_TX_OFFLOAD_.*",
    "RTE_ETH_RX_OFFLOAD_.*",
    "RTE_INTR_EVENT_.*",
    "RTE_MAX_ETHPORTS",
    "RTE_MBUF_DEFAULT_.*",
    "RTE_PKTMBUF_HEADROOM",
    "SLIM_.*",
];

fn main() {
    println!("cargo:rerun-if-changed=shim/shim.h");
    println!("cargo:rerun-if-changed=shim/shim.c");
    for variable in ["DPDK_INCLUDE_DIR", "DPDK_LIB_DIR", "LIBCLANG_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }

    let libraries = library_dir();
    let flags = compiler_flags();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());

    bindings(&flags, &out.join("bindings.rs"));

    // The shim comes first on the linker's line: its `get_tsc_freq_arch` and `eal_cpu_…` then take the EAL's place.
    let mut shim = cc::Build::new();
    shim.file("shim/shim.c").std("gnu11").opt_level(2).warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    if env::var_os(MLX5).is_some() {
        shim.define("SLIM_MLX5", None);
    }
    shim.compile("slim_dpdk_shim");

    println!("cargo:rustc-link-search=native={}", libraries.display());
    for name in whole() {
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{name}");
    }
    for name in PLAIN {
        println!("cargo:rustc-link-lib=static:-bundle=rte_{name}");
    }
    for name in verbs().chain(SYSTEM.iter().copied()) {
        println!("cargo:rustc-link-lib=static:-bundle={name}");
    }
}

/// The libraries that a feature needs of the system.
fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.iter().copied().filter(|_| env::var_os(MLX5).is_some())
}

/// What is linked as a whole, with what features add.
fn whole() -> impl Iterator<Item = &'static str> {
    let added = FEATURES.iter().filter(|(feature, _)| env::var_os(feature).is_some());
    WHOLE.iter().copied().chain(added.flat_map(|(_, libraries)| libraries.iter().copied()))
}

/// Where the static libraries are, after a check that all of them are there.
fn library_dir() -> PathBuf {
    let candidates = match env::var_os("DPDK_LIB_DIR") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => vec!["/usr/lib/x86_64-linux-gnu".into(), "/usr/local/lib/x86_64-linux-gnu".into()],
    };
    let names = || whole().chain(PLAIN.iter().copied()).map(|name| format!("librte_{name}.a"));
    let Some(dir) = candidates.iter().find(|dir| dir.join("librte_eal.a").is_file()) else {
        missing("libdpdk-dev", &format!("librte_eal.a is not in any of {candidates:?}"));
    };
    if let Some(name) = names().find(|name| !dir.join(name).is_file()) {
        missing("libdpdk-dev (22.11)", &format!("{name} is not in {}", dir.display()));
    }
    let system = [("libnuma.a", "libnuma-dev"), ("libbsd.a", "libbsd-dev"), ("libmd.a", "libmd-dev")];
    let system = system.map(|(library, package)| (library.to_owned(), package));
    let verbs = verbs().map(|name| (format!("lib{name}.a"), "libibverbs-dev libnl-route-3-dev"));
    for (library, package) in system.into_iter().chain(verbs) {
        if !dir.join(&library).is_file() && !Path::new("/usr/lib/x86_64-linux-gnu").join(&library).is_file() {
            missing(package, &format!("{library} is not in {}", dir.display()));
        }
    }
    dir.clone()
}

/// What both compilers need: DPDK's headers, its configuration before anything else, and the instructions it assumes.
fn compiler_flags() -> Vec<String> {
    let include = env::var("DPDK_INCLUDE_DIR").unwrap_or_else(|_| "/usr/include/dpdk".into());
    if !Path::new(&include).join("rte_ethdev.h").is_file() {
        missing("libdpdk-dev", &format!("rte_ethdev.h is not in {include}"));
    }
    vec![
        format!("-I{include}"),
        "-I/usr/include/x86_64-linux-gnu/dpdk".into(),
        "-include".into(),
        "rte_config.h".into(),
        "-march=corei7".into(),
    ]
}

fn bindings(flags: &[String], to: &Path) {
    find_libclang();
    let mut builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(flags)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        .layout_tests(false)
        .generate_comments(false)
        .prepend_enum_name(false)
        .opaque_type("rte_arp_ipv4|rte_arp_hdr|rte_l2tpv2_.*|rte_gtp_.*");
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in VARIABLES {
        builder = builder.allowlist_var(name);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => missing(
            "libdpdk-dev libclang1-14 libclang-common-14-dev",
            &format!("bindgen could not read DPDK's headers: {error}"),
        ),
    };
    if let Err(error) = bindings.write_to_file(to) {
        fail(&format!("cannot write {}: {error}", to.display()));
    }
}

/// Points bindgen at Debian's versioned libclang, which it does not look for by itself.
fn find_libclang() {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return;
    }
    let versions = (14..=22).rev().map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/lib")));
    let has_libclang = |dir: &PathBuf| {
        let Ok(entries) = dir.read_dir() else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libclang.so") || name.starts_with("libclang-1") && name.contains(".so")
        })
    };
    let Some(dir) =
        versions.chain([PathBuf::from("/usr/lib/x86_64-linux-gnu"), PathBuf::from("/usr/lib")]).find(has_libclang)
    else {
        missing("libclang1-14 libclang-common-14-dev", "no libclang.so found");
    };
    // SAFETY: a build script's main thread is its only one.
    unsafe { env::set_var("LIBCLANG_PATH", dir) };
}

fn missing(packages: &str, found: &str) -> ! {
    fail(&format!(
        "dpdk-sys needs the Debian package(s) {packages}: {found}. `cargo xtask setup` installs everything; \
         DPDK_INCLUDE_DIR, DPDK_LIB_DIR and LIBCLANG_PATH point to other places"
    ))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1);
}
