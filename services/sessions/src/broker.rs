//! `AuthorityBroker`: what a session gets.

use alloc::vec::Vec;

use capos::capos_capnp::authority_broker;
use capos::{AuditEventType, AuditReasonClass, AuditResultClass, RuntimeRingClient};
use service::{Call, FOREVER, Refusal, Reply, empty_message};

use crate::desk::{Desk, named, no_such_method};
use crate::record::Decision;

mod ordinal {
    pub(super) const SHELL_BUNDLE: u16 = 0;
    pub(super) const REMOTE_CLIENT_BUNDLE: u16 = 1;
}

impl Desk {
    /// Answers a call of the broker. A remote client gets what a shell gets;
    /// the two methods have params and results of the same shape.
    pub(crate) fn broker(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
    ) -> (Result<Reply, Refusal>, Option<Decision>) {
        let method = match call.method {
            ordinal::SHELL_BUNDLE => "shellBundle",
            ordinal::REMOTE_CLIENT_BUNDLE => "remoteClientBundle",
            _ => return no_such_method(),
        };
        let mut decision = Decision::about(AuditEventType::Broker, method);
        let answer = self.bundle(ring, call, &mut decision);
        decision.conclude(&answer, AuditResultClass::Denied, AuditReasonClass::Policy);
        (answer, Some(decision))
    }

    fn bundle(
        &mut self,
        ring: &mut RuntimeRingClient<'_>,
        call: &Call,
        decision: &mut Decision,
    ) -> Result<Reply, Refusal> {
        let message = call.message()?;
        let params: authority_broker::shell_bundle_params::Reader<'_> = message.get_root()?;
        let (cap_id, profile) = (params.get_session_cap_id(), params.get_profile()?.to_str()?);
        let caller = self.caller_session(ring, call, cap_id, profile, decision)?;
        let entitled = self
            .accounts
            .entitlement(&caller.info.principal_id, caller.profile);
        let binaries: Vec<&str> = entitled.binaries.iter().map(AsRef::as_ref).collect();
        let session = caller.session.capability();
        let launcher = self.mint.launcher_wait(ring, session, &binaries, FOREVER);
        let launcher = launcher.map_err(|error| named("launcher", &error))?;
        let mut reply = Reply::void();
        let (launcher, session) = (reply.give(launcher), reply.give(caller.session));
        let info = reply.copy(self.system_info.cap_id());
        let shared = if entitled.endpoints {
            &self.endpoints[..]
        } else {
            &[]
        };
        let mut message = empty_message();
        let mut results: authority_broker::shell_bundle_results::Builder<'_> = message.init_root();
        results.set_launcher_index(launcher);
        results.set_session_index(session);
        results.set_system_info_index(info);
        let mut list = results.init_service_endpoints(shared.len() as u32);
        for (index, (name, endpoint)) in shared.iter().enumerate() {
            let mut entry = list.reborrow().get(index as u32);
            entry.set_name(name);
            entry.set_cap_index(reply.copy(endpoint.cap_id()));
        }
        reply.set_message(&message);
        Ok(reply)
    }
}
