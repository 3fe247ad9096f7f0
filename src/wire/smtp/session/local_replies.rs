//! Replies of this program, queued in order among those of the next hop.

use super::Session;
use super::queue::Item;
use crate::wire::smtp::replies::OwnReply;
use crate::wire::smtp::reply::Reply;

impl Session {
    /// Queues a fixed reply of this program.
    pub(super) fn say(&mut self, reply: OwnReply) {
        self.reply_with(reply.reply());
    }

    /// Queues a reply of this program whose text depends on the command.
    pub(super) fn reply(&mut self, code: u16, status: &str, text: &str) {
        self.reply_with(Reply::new(code, status, text));
    }

    pub(super) fn reply_with(&mut self, reply: Reply) {
        self.pipeline.queue.push(Item::Local(reply.text));
        self.flush_local();
    }

    /// Queues a reply of this program to a whole message. LMTP sends one for each recipient (RFC 2033 section 4.2).
    pub(super) fn reply_to_message(&mut self, reply: &Reply, recipients: u32) {
        for _ in 0..if self.settings.lmtp { recipients.max(1) } else { 1 } {
            self.pipeline.queue.push(Item::Local(reply.text.clone()));
        }
        self.flush_local();
    }

    pub(super) fn flush_local(&mut self) {
        while let Some(text) = self.pipeline.queue.take_local() {
            self.out.to_client.extend_from_slice(&text);
        }
        if self.pipeline.queue.is_empty() {
            (self.pipeline.barrier, self.pipeline.answer_is_awaited) = (false, false);
        }
    }
}
