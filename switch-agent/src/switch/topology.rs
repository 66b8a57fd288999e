//! Changing what the switch consists of. Every change is whole or refused, and repeating it changes nothing.

use super::model::{Instance, InstanceIndex, Port, Role, Rule};
use super::{Switch, slot};
use crate::counters::DropCause;
use crate::error::{BURST_BYTES_MIN, TopologyError};
use crate::flow_space::FlowSpace;
use crate::meter::MeterLimits;
use crate::{Buffers, PortIndex};
use slim_core::nf::PORTS_MAX;
use slim_core::protocol::Name;
use slim_core::protocol::control::LinkSettings;
use slim_core::time::Instant;

/// The most ports, and the most instances, that a switch has.
const SLOTS_MAX: usize = 64;

/// What of an external port's traffic one dataplane port of an instance gets, and where its own traffic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The external port.
    pub external: Name,
    /// The part of its traffic.
    pub flow_space: FlowSpace,
}

impl<B: Buffers> Switch<B> {
    /// Adds a port whose link is down.
    pub fn add_port(&mut self, name: Name) -> Result<PortIndex, TopologyError> {
        if self.port_named(&name).is_ok() {
            return Err(TopologyError::PortExists(name));
        }
        let index = free_slot(&mut self.ports)?;
        self.ports[usize::from(index)] = Some(Port::new(name, &self.limits));
        Ok(PortIndex(index))
    }

    /// Removes a port that nothing uses; its counters stay in the totals.
    pub fn remove_port(&mut self, name: &Name) -> Result<PortIndex, TopologyError> {
        let index = self.port_named(name)?;
        if let Some(by) = self.use_of(index) {
            return Err(TopologyError::PortInUse { port: name.clone(), by });
        }
        for path in self.instances.iter_mut().flatten().flat_map(|instance| &mut instance.paths) {
            path.external = path.external.filter(|&external| external != index);
        }
        if let Some(mut port) = self.ports[usize::from(index.0)].take() {
            let waiting = port.egress.clear();
            port.drops.add_many(DropCause::Removed, waiting);
            self.gone.merge(&port.drops);
            self.counts.sent_gone += port.sent.packets;
        }
        Ok(index)
    }

    /// Whether [`remove_port`](Self::remove_port) would succeed.
    pub fn check_remove_port(&self, name: &Name) -> Result<PortIndex, TopologyError> {
        let index = self.port_named(name)?;
        match self.use_of(index) {
            Some(by) => Err(TopologyError::PortInUse { port: name.clone(), by }),
            None => Ok(index),
        }
    }

    /// Makes `ports` the external ports of the management segment, all others not.
    pub fn set_management(&mut self, ports: &[Name]) -> Result<(), TopologyError> {
        let indices = self.distinct_ports(ports)?;
        for (&index, name) in indices.iter().zip(ports) {
            let is_management = self.port(index).is_some_and(|port| port.role == Role::Management);
            if let Some(by) = self.use_of(index).filter(|_| !is_management) {
                return Err(TopologyError::PortInUse { port: name.clone(), by });
            }
        }
        for (index, port) in self.ports.iter_mut().enumerate() {
            let Some(port) = port else { continue };
            let index = PortIndex(index as u16);
            if indices.contains(&index) {
                port.role = Role::Management;
            } else if port.role == Role::Management {
                port.role = Role::External;
                self.bridge.forget(index);
            }
        }
        Ok(())
    }

    /// Declares an instance: its dataplane ports in order, its management port, and the link all its traffic passes.
    ///
    /// For an instance that exists with the same ports this only changes the link.
    pub fn add_instance(
        &mut self,
        now: Instant,
        name: Name,
        ports: &[Name],
        mgmt: Option<&Name>,
        link: LinkSettings,
    ) -> Result<(), TopologyError> {
        check_link(&link)?;
        if ports.is_empty() || ports.len() > PORTS_MAX {
            return Err(TopologyError::InstancePorts(ports.len()));
        }
        let all: Vec<Name> = ports.iter().chain(mgmt).cloned().collect();
        let mut indices = self.distinct_ports(&all)?;
        let mgmt = if mgmt.is_some() { indices.pop() } else { None };
        if let Ok(index) = self.instance_named(&name) {
            let same = self.instance(index).is_some_and(|old| old.ports == indices && old.mgmt == mgmt);
            return if same {
                self.set_link_settings(now, &name, link)
            } else {
                Err(TopologyError::InstanceExists(name))
            };
        }
        for (&index, name) in indices.iter().chain(&mgmt).zip(&all) {
            if let Some(by) = self.use_of(index) {
                return Err(TopologyError::PortInUse { port: name.clone(), by });
            }
        }
        let index = InstanceIndex(free_slot(&mut self.instances)?);
        for (number, port) in indices.iter().enumerate() {
            if let Some(port) = slot(&mut self.ports, port.0) {
                port.role = Role::Instance(index, number as u8);
            }
        }
        if let Some(port) = mgmt.and_then(|mgmt| slot(&mut self.ports, mgmt.0)) {
            port.role = Role::InstanceManagement(index);
        }
        self.instances[usize::from(index.0)] = Some(Instance::new(now, name, indices, mgmt, link, &self.limits));
        Ok(())
    }

    /// Gives an instance's machine a port in the management segment, behind the instance's link, or takes it away.
    pub fn set_host_port(&mut self, instance: &Name, port: Option<&Name>) -> Result<(), TopologyError> {
        let index = self.instance_named(instance)?;
        let wanted = port.map(|port| self.port_named(port)).transpose()?;
        let present = self.instance(index).and_then(|instance| instance.host);
        if wanted == present {
            return Ok(());
        }
        if let Some((wanted, name)) = wanted.zip(port)
            && let Some(by) = self.use_of(wanted)
        {
            return Err(TopologyError::PortInUse { port: name.clone(), by });
        }
        for (port, role) in [(present, Role::External), (wanted, Role::InstanceManagement(index))] {
            if let Some((index, port)) = port.and_then(|index| Some((index, slot(&mut self.ports, index.0)?))) {
                port.role = role;
                self.bridge.forget(index);
            }
        }
        if let Some(instance) = slot(&mut self.instances, index.0) {
            instance.host = wanted;
        }
        Ok(())
    }

    /// Forgets an instance that no path leads to; its ports stay. What is on its link is dropped and counted.
    pub fn remove_instance(&mut self, now: Instant, name: &Name) -> Result<(), TopologyError> {
        let index = self.instance_named(name)?;
        if self.instance(index).is_some_and(|instance| instance.bound) {
            return Err(TopologyError::InstanceInUse(name.clone()));
        }
        let Some(mut instance) = self.instances[usize::from(index.0)].take() else { return Ok(()) };
        let dropped = instance.to.clear() + instance.from.clear();
        self.gone.add_many(DropCause::Removed, dropped);
        for &port in instance.ports.iter().chain(&instance.mgmt).chain(&instance.host) {
            if let Some(port) = slot(&mut self.ports, port.0) {
                port.role = Role::External;
            }
            self.bridge.forget(port);
        }
        self.forget_redirects_of(index);
        self.end_holds(now);
        Ok(())
    }

    /// Binds an instance's dataplane ports to external ports in both directions, in one step; no bindings unbind all.
    ///
    /// Several instances may share an external port in different flow spaces. The first bound is asked first, but one
    /// that takes everything is asked last.
    pub fn set_paths(&mut self, instance: &Name, bindings: &[Binding]) -> Result<(), TopologyError> {
        let index = self.instance_named(instance)?;
        let ends = self.check_paths(index, instance, bindings)?;
        for port in self.ports.iter_mut().flatten() {
            port.rules.retain(|rule| rule.instance != index);
        }
        for (number, &(external, flow_space)) in ends.iter().enumerate() {
            let Some(port) = slot(&mut self.ports, external.0) else { continue };
            port.rules.push(Rule { flow_space, instance: index, number: number as u8 });
            port.rules.sort_by_key(|rule| rule.flow_space == FlowSpace::ANY);
        }
        if let Some(instance) = slot(&mut self.instances, index.0) {
            instance.bound = !ends.is_empty();
            for (number, path) in instance.paths.iter_mut().enumerate() {
                let end = ends.get(number);
                path.external = end.map(|end| end.0);
                path.flow_space = end.map_or(FlowSpace::ANY, |end| end.1);
            }
        }
        Ok(())
    }

    fn check_paths(
        &self,
        index: InstanceIndex,
        name: &Name,
        bindings: &[Binding],
    ) -> Result<Vec<(PortIndex, FlowSpace)>, TopologyError> {
        let Some(instance) = self.instance(index) else { return Err(TopologyError::NoSuchInstance(name.clone())) };
        if instance.hold.is_some() {
            return Err(TopologyError::RollbackUnfinished(name.clone()));
        }
        let (ports, externals) = (instance.ports.len(), bindings.len());
        if !bindings.is_empty() && externals != ports {
            return Err(TopologyError::PortCount { instance: name.clone(), ports, externals });
        }
        let names: Vec<Name> = bindings.iter().map(|binding| binding.external.clone()).collect();
        let indices = self.distinct_ports(&names)?;
        for (index_of_port, binding) in indices.iter().zip(bindings) {
            let Some(port) = self.port(*index_of_port) else { continue };
            if port.role != Role::External {
                let by = self.use_of(*index_of_port).unwrap_or_default();
                return Err(TopologyError::PortInUse { port: binding.external.clone(), by });
            }
            let mut others = port.rules.iter().filter(|rule| rule.instance != index);
            if let Some(rule) = others.find(|rule| rule.flow_space == binding.flow_space) {
                let other = self.instance(rule.instance).map_or("", |instance| instance.name.as_str());
                let by = format!("its traffic goes to {other}");
                return Err(TopologyError::PortInUse { port: binding.external.clone(), by });
            }
        }
        Ok(indices.into_iter().zip(bindings.iter().map(|binding| binding.flow_space)).collect())
    }

    /// Changes the settings of an instance's link; what is on it stays in order.
    pub fn set_link_settings(
        &mut self,
        now: Instant,
        instance: &Name,
        link: LinkSettings,
    ) -> Result<(), TopologyError> {
        check_link(&link)?;
        let index = self.instance_named(instance)?;
        if let Some(instance) = slot(&mut self.instances, index.0) {
            instance.settings = link;
            instance.to.set(now, &link, &self.limits);
            instance.from.set(now, &link, &self.limits);
        }
        Ok(())
    }

    pub(super) fn port(&self, index: PortIndex) -> Option<&Port<B::Packet>> {
        self.ports.get(usize::from(index.0))?.as_ref()
    }

    pub(super) fn instance(&self, index: InstanceIndex) -> Option<&Instance<B::Packet>> {
        self.instances.get(usize::from(index.0))?.as_ref()
    }

    /// The port called `name`.
    pub fn port_named(&self, name: &Name) -> Result<PortIndex, TopologyError> {
        let has_name = |port: &Option<Port<_>>| port.as_ref().is_some_and(|port| port.name == *name);
        let index = self.ports.iter().position(has_name);
        index.map(|index| PortIndex(index as u16)).ok_or_else(|| TopologyError::NoSuchPort(name.clone()))
    }

    pub(super) fn instance_named(&self, name: &Name) -> Result<InstanceIndex, TopologyError> {
        let has_name = |instance: &Option<Instance<_>>| instance.as_ref().is_some_and(|one| one.name == *name);
        let index = self.instances.iter().position(has_name);
        index.map(|index| InstanceIndex(index as u16)).ok_or_else(|| TopologyError::NoSuchInstance(name.clone()))
    }

    fn distinct_ports(&self, names: &[Name]) -> Result<Vec<PortIndex>, TopologyError> {
        let mut indices = Vec::with_capacity(names.len());
        for name in names {
            let index = self.port_named(name)?;
            if indices.contains(&index) {
                return Err(TopologyError::PortTwice(name.clone()));
            }
            indices.push(index);
        }
        Ok(indices)
    }

    /// What a port is used for, in words, if it is used.
    fn use_of(&self, index: PortIndex) -> Option<String> {
        let port = self.port(index)?;
        let instance_name = |index| self.instance(index).map_or("", |instance| instance.name.as_str());
        match port.role {
            Role::External => {
                let rule = port.rules.first()?;
                Some(format!("its traffic goes to {}", instance_name(rule.instance)))
            }
            Role::Management => Some("it belongs to the management segment".into()),
            Role::Instance(instance, _) => Some(format!("it is a dataplane port of {}", instance_name(instance))),
            Role::InstanceManagement(instance) => {
                let host = self.instance(instance).is_some_and(|instance| instance.host == Some(index));
                let what = if host { "host" } else { "management" };
                Some(format!("it is the {what} port of {}", instance_name(instance)))
            }
        }
    }
}

fn check_link(link: &LinkSettings) -> Result<(), TopologyError> {
    match link.burst_bytes {
        _ if link.rate_bps == 0 => Ok(()),
        ..BURST_BYTES_MIN => Err(TopologyError::BurstTooSmall),
        BURST_BYTES_MIN..=MeterLimits::BURST_BYTES_MAX => Ok(()),
        _ => Err(TopologyError::BurstTooLarge),
    }
}

fn free_slot<T>(slots: &mut Vec<Option<T>>) -> Result<u16, TopologyError> {
    let index = slots.iter().position(Option::is_none).unwrap_or(slots.len());
    if index >= SLOTS_MAX {
        return Err(TopologyError::Limit(SLOTS_MAX));
    }
    if index == slots.len() {
        slots.push(None);
    }
    Ok(index as u16)
}
