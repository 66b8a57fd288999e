//! What clients ask for.

use super::lifecycle::Order;
use super::registry::CALL_LIMIT;
use super::{Daemon, from_fabric};
use crate::api::{ApiEvent, ApiReply, ApiRequest, DaemonStatus, InstanceInfo};
use slim_core::protocol::control::{ControlError, InstanceRequest};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Daemon {
    /// Carries out one request; `on_event` is told what happens meanwhile.
    pub(super) fn handle(
        self: &Arc<Self>,
        request: ApiRequest,
        on_event: &mut dyn FnMut(ApiEvent),
    ) -> Result<ApiReply, ControlError> {
        let instance = |info: InstanceInfo| ApiReply::Instance { instance: Box::new(info) };
        let done = |()| ApiReply::Done {};
        match request {
            ApiRequest::Status {} => Ok(ApiReply::Status { status: Box::new(self.status()) }),
            ApiRequest::InstanceList {} => Ok(ApiReply::Instances { instances: self.instances() }),
            ApiRequest::InstanceShow { name } => self.registry.get(&name).map(|entry| instance(entry.info(true))),
            ApiRequest::InstanceConfig { name } => {
                self.registry.get(&name)?.config(CALL_LIMIT).map(|toml| ApiReply::Config { toml })
            }
            ApiRequest::InstanceSubscribers { name, from } => {
                self.registry.get(&name)?.subscribers(from, CALL_LIMIT).map(|page| ApiReply::Subscribers { page })
            }
            ApiRequest::InstanceBoot { name, vnf, active, functions } => {
                let booted = self.boot(&name, vnf.as_ref(), &Order { active, pooled: false, functions });
                self.write_kept();
                booted.map(instance)
            }
            ApiRequest::InstanceAttach { name, control, vnf, active } => {
                let attached = self.attach(&name, &control, vnf.as_ref(), active);
                self.write_kept();
                self.recover_migrations(false);
                attached.map(instance)
            }
            ApiRequest::InstanceRetire { name, force } => {
                let retired = self.retire(&name, force);
                self.write_kept();
                retired.map(done)
            }
            ApiRequest::PathList {} => {
                self.fabric.paths().map(|instances| ApiReply::Paths { instances }).map_err(from_fabric)
            }
            ApiRequest::Plan { source, destination, options } => {
                self.plan(&source, destination.as_ref(), &options).map(|plan| ApiReply::Plan { plan: Box::new(plan) })
            }
            ApiRequest::Migrate { source, destination, options } => self
                .migrate(&source, destination.as_ref(), &options, on_event)
                .map(|outcome| ApiReply::Migration { outcome: Box::new(outcome) }),
            ApiRequest::Precopy { source, destination, options } => self
                .precopy(&source, &destination, &options, on_event)
                .map(|outcome| ApiReply::Precopy { outcome: Box::new(outcome) }),
            ApiRequest::Pool { vnf, size } => self.pool(vnf.as_ref(), size).map(|pools| ApiReply::Pools { pools }),
            ApiRequest::Abort { instance } => self.abort(instance.as_ref()).map(done),
            ApiRequest::InstanceReset { name } => {
                self.registry.get(&name)?.order(InstanceRequest::Reset {}, CALL_LIMIT).map(done)
            }
            ApiRequest::InstanceResolve { name, outcome } => {
                self.registry.get(&name).and_then(|entry| self.resolve(&entry, outcome)).map(done)
            }
            ApiRequest::PathSet { instance } => self.lead_to(&instance).map(done),
            ApiRequest::Shutdown { retire } => {
                self.retire_at_end.store(retire, Ordering::Release);
                self.stop.set();
                Ok(done(()))
            }
        }
    }

    fn instances(&self) -> Vec<InstanceInfo> {
        // Each may have to be waited for: ask them all at once.
        let entries = self.registry.all();
        std::thread::scope(|scope| {
            let asked: Vec<_> = entries.iter().map(|entry| scope.spawn(|| entry.info(false))).collect();
            asked.into_iter().filter_map(|asked| asked.join().ok()).collect()
        })
    }

    fn status(&self) -> DaemonStatus {
        let (migrations, past_migrations) = self.migrations.summaries();
        DaemonStatus {
            software: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            process_id: std::process::id(),
            switch: self.deployment.switch.clone(),
            switch_status: self.fabric.is_up().then(|| self.fabric.status().ok()).flatten().map(Box::new),
            instances: self.instances(),
            migrations,
            past_migrations,
        }
    }
}
