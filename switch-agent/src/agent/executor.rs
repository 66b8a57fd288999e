//! Carries out requests, one after the other.
//!
//! What takes long, opening and closing devices, happens on the executor's thread; what touches packets is handed to
//! the dataplane's thread, which does it between two bursts.

use crate::dataplane::{Dataplane, Handle, PortSnapshot, Stopped};
use crate::device::Device;
use dpdk::{Eal, Mempool};
use slim_core::protocol::Name;
use slim_core::protocol::control::{
    ControlError, ErrorCode, PortKind, PortStatus, SwitchReply, SwitchRequest, SwitchStatus,
};
use slim_core::time::Duration;
use slim_switch::config::{Config, check_kind};
use slim_switch::flow_space::FlowSpace;
use slim_switch::{Binding, Redirect, TopologyError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Carries out requests. Lives on a thread of its own.
pub struct Executor {
    eal: Arc<Eal>,
    pool: Mempool,
    dataplane: Handle,
    /// Every port, in the order they were opened.
    ports: Vec<(Name, PortKind)>,
    stop: Arc<AtomicBool>,
}

impl From<Stopped> for ControlError {
    fn from(stopped: Stopped) -> Self {
        Self::with(ErrorCode::Internal, stopped.to_string())
    }
}

impl Executor {
    /// An executor for a switch without ports. `stop` is set by the request to shut down.
    pub fn new(eal: Arc<Eal>, pool: Mempool, dataplane: Handle, stop: Arc<AtomicBool>) -> Self {
        Self { eal, pool, dataplane, ports: Vec::new(), stop }
    }

    /// Brings up what a configuration asks for.
    pub fn apply(&mut self, config: &Config) -> anyhow::Result<()> {
        for port in &config.ports {
            self.execute(SwitchRequest::PortAdd { name: port.name.clone(), kind: port.kind.clone() })
                .map_err(|error| anyhow::anyhow!("port {}: {error}", port.name))?;
        }
        self.execute(SwitchRequest::ManagementSet { ports: config.management.clone() })?;
        for instance in &config.instances {
            let (name, ports) = (instance.name.clone(), instance.ports.clone());
            let (mgmt, link) = (instance.mgmt.clone(), instance.link);
            self.execute(SwitchRequest::InstanceAdd { name: name.clone(), ports, mgmt, link })
                .map_err(|error| anyhow::anyhow!("instance {name}: {error}"))?;
            let bindings = instance.bindings()?;
            self.dataplane.call(move |dataplane| dataplane.switch.set_paths(&name, &bindings))??;
        }
        Ok(())
    }

    /// Carries out `request`.
    pub fn execute(&mut self, request: SwitchRequest) -> Result<SwitchReply, ControlError> {
        match request {
            SwitchRequest::PortAdd { name, kind } => self.add_port(name, kind),
            SwitchRequest::PortRemove { name } => self.remove_port(name),
            SwitchRequest::PortList {} => Ok(SwitchReply::Ports { ports: self.port_list()? }),
            SwitchRequest::ManagementSet { ports } => {
                self.change(move |dataplane| dataplane.switch.set_management(&ports))
            }
            SwitchRequest::InstanceAdd { name, ports, mgmt, link } => {
                log::info!(
                    "instance {name}: {} bit/s, {} bytes, {} µs",
                    link.rate_bps,
                    link.burst_bytes,
                    link.delay_us
                );
                self.change(move |dataplane| {
                    let now = dataplane.now();
                    dataplane.switch.add_instance(now, name, &ports, mgmt.as_ref(), link)
                })
            }
            SwitchRequest::InstanceRemove { name } => {
                log::info!("instance {name}: to be removed");
                self.change(move |dataplane| {
                    let now = dataplane.now();
                    dataplane.switch.remove_instance(now, &name)
                })
            }
            SwitchRequest::HostPortSet { instance, port } => {
                self.change(move |dataplane| dataplane.switch.set_host_port(&instance, port.as_ref()))
            }
            SwitchRequest::PathsSet { instance, externals } => {
                let bind = |external| Binding { external, flow_space: FlowSpace::ANY };
                let bindings: Vec<Binding> = externals.into_iter().map(bind).collect();
                self.change(move |dataplane| dataplane.switch.set_paths(&instance, &bindings))
            }
            SwitchRequest::PathList {} => {
                let instances = self.dataplane.call(|dataplane| dataplane.switch.instances())?;
                Ok(SwitchReply::Paths { instances })
            }
            SwitchRequest::Redirect { migration, from, to, nonce, rollback, hold_ms } => {
                log::info!("migration {migration}: redirect {from} to {to}, nonce {nonce}, rollback {rollback}");
                let hold_max = Duration::from_millis(hold_ms.into());
                let redirect = Redirect { migration, nonce, from, to, rollback, hold_max };
                self.change(move |dataplane| {
                    let now = dataplane.now();
                    dataplane.switch.redirect(now, redirect)
                })
            }
            SwitchRequest::RedirectStatus { migration } => {
                let state = self.dataplane.call(move |dataplane| dataplane.switch.redirect_state(migration))?;
                Ok(SwitchReply::Redirect { state })
            }
            SwitchRequest::LinkSet { instance, link } => self.change(move |dataplane| {
                let now = dataplane.now();
                dataplane.switch.set_link_settings(now, &instance, link)
            }),
            SwitchRequest::Status {} => self.status(),
            SwitchRequest::Shutdown {} => {
                log::info!("asked to stop");
                self.stop.store(true, Ordering::Relaxed);
                Ok(SwitchReply::Done {})
            }
        }
    }

    fn change(
        &self,
        work: impl FnOnce(&mut Dataplane) -> Result<(), TopologyError> + Send + 'static,
    ) -> Result<SwitchReply, ControlError> {
        self.dataplane.call(work)??;
        Ok(SwitchReply::Done {})
    }

    fn add_port(&mut self, name: Name, kind: PortKind) -> Result<SwitchReply, ControlError> {
        if let Some((_, present)) = self.ports.iter().find(|(other, _)| *other == name) {
            return if *present == kind {
                Ok(SwitchReply::Done {})
            } else {
                Err(TopologyError::PortExists(name).into())
            };
        }
        let resource =
            check_kind(&kind).map_err(|error| ControlError::with(ErrorCode::Malformed, error.to_string()))?;
        if let Some((other, _)) = self.ports.iter().find(|(_, other)| check_kind(other) == Ok(resource)) {
            return Err(ControlError::with(ErrorCode::AlreadyExists, format!("{resource} is port {other}'s already")));
        }
        let device = Device::open(&self.eal, &self.pool, &kind)?;
        let attached = name.clone();
        // A device that is refused comes back, to be closed here.
        let refused = self.dataplane.call(move |dataplane| dataplane.add_port(attached, device).err())?;
        if let Some((error, device)) = refused {
            drop(device);
            return Err(error.into());
        }
        log::info!("port {name}: open, {kind:?}");
        self.ports.push((name, kind));
        Ok(SwitchReply::Done {})
    }

    fn remove_port(&mut self, name: Name) -> Result<SwitchReply, ControlError> {
        let removed = name.clone();
        let device = self.dataplane.call(move |dataplane| dataplane.remove_port(&removed))??;
        drop(device);
        log::info!("port {name}: closed");
        self.ports.retain(|(other, _)| *other != name);
        Ok(SwitchReply::Done {})
    }

    fn port_list(&self) -> Result<Vec<PortStatus>, ControlError> {
        let names: Vec<Name> = self.ports.iter().map(|(name, _)| name.clone()).collect();
        let snapshots = self.dataplane.call(move |dataplane| {
            names.iter().map(|name| dataplane.port(name)).collect::<Vec<Option<PortSnapshot>>>()
        })?;
        let status = |((name, kind), snapshot): (&(Name, PortKind), Option<PortSnapshot>)| {
            let PortSnapshot { up, instance, counters } = snapshot?;
            Some(PortStatus { name: name.clone(), kind: kind.clone(), up, instance, counters })
        };
        Ok(self.ports.iter().zip(snapshots).filter_map(status).collect())
    }

    fn status(&self) -> Result<SwitchReply, ControlError> {
        let ports = self.port_list()?;
        let snapshot = self.dataplane.call(|dataplane| dataplane.snapshot())?;
        let status = SwitchStatus {
            software: concat!("slim-switch ", env!("CARGO_PKG_VERSION")).into(),
            uptime_ms: snapshot.uptime_ms,
            counters: snapshot.counters,
            instances: snapshot.instances,
            ports,
            redirects: snapshot.redirects,
        };
        Ok(SwitchReply::Status { status: Box::new(status) })
    }
}
