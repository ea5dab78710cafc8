//! What was decided, for the audit log.

use alloc::string::String;
use alloc::vec::Vec;

use capos::{AuditEventType, AuditReasonClass, AuditRecord, AuditResultClass, SessionInfo};
use service::{Refusal, Reply};

/// A decision, as far as it is recorded.
pub(crate) struct Decision {
    pub(crate) event: AuditEventType,
    pub(crate) result: AuditResultClass,
    pub(crate) reason: AuditReasonClass,
    pub(crate) terminal_event_id: Vec<u8>,
    pub(crate) session_id: Vec<u8>,
    pub(crate) principal_id: Vec<u8>,
    pub(crate) profile: String,
    pub(crate) method: &'static str,
}

impl Decision {
    /// Nothing but what it is about.
    pub(crate) const fn about(event: AuditEventType, method: &'static str) -> Self {
        Self {
            event,
            result: AuditResultClass::Ok,
            reason: AuditReasonClass::None,
            terminal_event_id: Vec::new(),
            session_id: Vec::new(),
            principal_id: Vec::new(),
            profile: String::new(),
            method,
        }
    }

    /// It is about this session.
    pub(crate) fn concern(&mut self, session: &SessionInfo) {
        self.session_id = session.session_id.to_vec();
        self.principal_id = session.principal_id.to_vec();
        self.profile.clone_from(&session.profile);
    }

    /// Notes a refusal, and why.
    pub(crate) fn conclude(
        &mut self,
        answer: &Result<Reply, Refusal>,
        denied: AuditResultClass,
        reason: AuditReasonClass,
    ) {
        if answer.is_err() {
            (self.result, self.reason) = (denied, reason);
        }
    }

    /// As the audit log takes it.
    pub(crate) fn record(&self) -> AuditRecord<'_> {
        AuditRecord {
            event_type: self.event,
            result_class: self.result,
            reason_class: self.reason,
            terminal_event_id: &self.terminal_event_id,
            session_id: &self.session_id,
            principal_id: &self.principal_id,
            profile: &self.profile,
            auth_method: self.method,
            volatile: true,
        }
    }
}
