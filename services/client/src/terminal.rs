//! `TerminalExtension`: lines with history.

use alloc::boxed::Box;
use alloc::vec;

use capnp::message::Builder;
use capos::{
    CallId, Capability, ClientError, CompletedCall, LineStatus, TerminalReadResult,
    TerminalSession, Transport, decode_completed_call,
};
use sel4_capos_schema::method;
use sel4_capos_schema::terminal_capnp::terminal_extension::{
    read_edited_params, read_edited_results,
};

use super::finished;

/// Room for the longest line, or for an exception with its text.
const RESULT_BYTES: usize = 512;

/// Submits a read of a visible line of at most `max_bytes`. `history` has
/// earlier lines for the Up and Down keys, oldest first.
///
/// # Errors
/// The ring's.
pub fn read_edited(
    terminal: Capability<TerminalSession>,
    ring: &mut impl Transport,
    prompt: &str,
    max_bytes: u32,
    history: &[impl AsRef<str>],
) -> Result<CallId, ClientError> {
    let result = vec![0; RESULT_BYTES].into_boxed_slice();
    let params = params(prompt, max_bytes, history);
    ring.submit_call(terminal.cap_id(), method::READ_EDITED, params, result)
        .map_err(ClientError::Ring)
}

/// Reads the completion of [`read_edited`].
///
/// # Errors
/// An exception: `unimplemented` where there is no history, and those of
/// `readLine`.
pub fn finish_read_edited(completion: &CompletedCall) -> Result<TerminalReadResult, ClientError> {
    decode_completed_call(completion)?;
    let malformed = |_| ClientError::MessageEncode;
    let mut bytes = completion.result_bytes().map_err(ClientError::ResultCap)?;
    let options = capos::default_reader_options();
    let message = capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options)
        .map_err(malformed)?;
    let root: read_edited_results::Reader<'_> = message.get_root().map_err(malformed)?;
    let status = match root.get_status() {
        0 => LineStatus::Submitted,
        1 => LineStatus::Cancelled,
        _ => LineStatus::Closed,
    };
    let line = Box::from(root.get_line().map_err(malformed)?);
    Ok(TerminalReadResult { status, line })
}

/// Reads a line.
///
/// # Errors
/// As the two steps.
pub fn read_edited_wait(
    terminal: Capability<TerminalSession>,
    ring: &mut impl Transport,
    prompt: &str,
    max_bytes: u32,
    history: &[impl AsRef<str>],
    timeout_ns: u64,
) -> Result<TerminalReadResult, ClientError> {
    let call = read_edited(terminal, ring, prompt, max_bytes, history)?;
    let completion = ring.wait(call, timeout_ns).map_err(ClientError::Ring)?;
    finish_read_edited(&completion)
}

fn params(prompt: &str, max_bytes: u32, history: &[impl AsRef<str>]) -> Box<[u8]> {
    let mut message = Builder::new_default();
    let mut params: read_edited_params::Builder<'_> = message.init_root();
    let mut request = params.reborrow().init_request();
    request.set_prompt(prompt);
    request.set_max_bytes(max_bytes);
    let mut lines = params.init_history(history.len() as u32);
    for (index, line) in history.iter().enumerate() {
        lines.set(index as u32, line.as_ref());
    }
    finished(&message)
}
