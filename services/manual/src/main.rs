//! Pages about the system: `Manual` as a service. The pages are part of this
//! program, and so of the boot package.
//!
//! Holds: `manual` (the endpoint it serves).
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;

use capnp::message::{Builder, HeapAllocator};
use capos::capos_capnp::{Source, man_page, manual, page_ref};
use capos::prelude::*;
use capos::{Endpoint, ExceptionType, RuntimeRingClient};
use manual_core::{Corpus, Origin, Page, QUERY_BYTES_MAX};
use service::{Call, Refusal, Reply, Server, Service, empty_message, refuse, serve};

const RECEIVES: usize = 4;
/// A name that is too long is refused, however long it is.
const PARAMS_BYTES: usize = 256;

const EXIT_BUNDLE: i64 = 2;
const EXIT_SERVING: i64 = 3;
const EXIT_PAGES: i64 = 4;

mod ordinal {
    pub(super) const PAGE: u16 = 0;
    pub(super) const APROPOS: u16 = 1;
    pub(super) const TOPICS: u16 = 2;
    pub(super) const SECTION: u16 = 3;
    pub(super) const DESCRIBE: u16 = 4;
    pub(super) const BUILD_INFO: u16 = 5;
}

type Answer = Builder<HeapAllocator>;

struct Pages(Corpus);

impl Service for Pages {
    fn has_method(&self, _endpoint: usize, method: u16) -> bool {
        method <= ordinal::BUILD_INFO
    }

    fn call(
        &mut self,
        _ring: &mut RuntimeRingClient<'_>,
        call: &mut Call,
    ) -> Result<Reply, Refusal> {
        let answer = match call.method {
            ordinal::PAGE => self.page(call)?,
            ordinal::APROPOS => self.apropos(call)?,
            ordinal::TOPICS => self.topics(),
            ordinal::SECTION => self.section(call)?,
            ordinal::DESCRIBE => self.describe(call)?,
            _ => self.build_info(),
        };
        Ok(Reply::message(&answer))
    }
}

/// A name or word of a caller.
fn bounded(text: &str) -> Result<&str, Refusal> {
    if text.len() <= QUERY_BYTES_MAX {
        return Ok(text);
    }
    let message = "name or word is too long";
    Err(refuse(ExceptionType::InvalidArgument, message))
}

fn not_found() -> Refusal {
    refuse(ExceptionType::Failed, "there is no such page")
}

impl Pages {
    fn page(&self, call: &Call) -> Result<Answer, Refusal> {
        let message = call.message()?;
        let params: manual::page_params::Reader<'_> = message.get_root()?;
        let name = bounded(params.get_name()?.to_str()?)?;
        let page = self.0.page(name, params.get_section());
        let page = page.ok_or_else(not_found)?;
        let mut answer = empty_message();
        let results: manual::page_results::Builder<'_> = answer.init_root();
        self.put(results.init_page(), page);
        Ok(answer)
    }

    fn describe(&self, call: &Call) -> Result<Answer, Refusal> {
        let message = call.message()?;
        let params: manual::describe_params::Reader<'_> = message.get_root()?;
        let page = self.0.interface(params.get_interface_id());
        let page = page.ok_or_else(not_found)?;
        let mut answer = empty_message();
        let results: manual::describe_results::Builder<'_> = answer.init_root();
        self.put(results.init_page(), page);
        Ok(answer)
    }

    fn put(&self, mut to: man_page::Builder<'_>, page: &Page) {
        to.set_name(&page.name);
        to.set_section(page.section);
        to.set_title(&page.title);
        to.set_body(&page.body);
        to.set_build_id(self.0.build());
        to.set_source(match page.origin {
            Origin::Schema => Source::SchemaReflection,
            Origin::Prose => Source::Prose,
        });
        let mut see_also = to.reborrow().init_see_also(page.see_also.len() as u32);
        for (index, reference) in page.see_also.iter().enumerate() {
            let mut entry = see_also.reborrow().get(index as u32);
            entry.set_name(&reference.name);
            entry.set_section(reference.section);
        }
        let mut examples = to.init_examples(page.examples.len() as u32);
        for (index, example) in page.examples.iter().enumerate() {
            examples.set(index as u32, example);
        }
    }

    fn apropos(&self, call: &Call) -> Result<Answer, Refusal> {
        let message = call.message()?;
        let params: manual::apropos_params::Reader<'_> = message.get_root()?;
        let query = bounded(params.get_query()?.to_str()?)?;
        let found = || self.0.about(query);
        let mut answer = empty_message();
        let results: manual::apropos_results::Builder<'_> = answer.init_root();
        let mut result = results.init_result();
        result.set_query(query);
        let mut list = result.init_matches(found().count() as u32);
        for (index, page) in found().enumerate() {
            refer(list.reborrow().get(index as u32), page);
        }
        Ok(answer)
    }

    fn section(&self, call: &Call) -> Result<Answer, Refusal> {
        let message = call.message()?;
        let params: manual::section_params::Reader<'_> = message.get_root()?;
        let found = || self.0.section(params.get_section());
        let mut answer = empty_message();
        let results: manual::section_results::Builder<'_> = answer.init_root();
        let mut list = results.init_pages(found().count() as u32);
        for (index, page) in found().enumerate() {
            refer(list.reborrow().get(index as u32), page);
        }
        Ok(answer)
    }

    fn topics(&self) -> Answer {
        let topics = self.0.topics();
        let mut answer = empty_message();
        let results: manual::topics_results::Builder<'_> = answer.init_root();
        let mut list = results.init_topics(topics.len() as u32);
        for (index, (key, pages)) in topics.iter().enumerate() {
            let mut topic = list.reborrow().get(index as u32);
            topic.set_key(key);
            topic.set_title(format!("pages about {key}"));
            let mut list = topic.init_pages(pages.len() as u32);
            for (index, page) in pages.iter().enumerate() {
                refer(list.reborrow().get(index as u32), page);
            }
        }
        answer
    }

    /// The pages are named by their digest; an image has no time of building.
    fn build_info(&self) -> Answer {
        let mut answer = empty_message();
        let mut results: manual::build_info_results::Builder<'_> = answer.init_root();
        results.set_commit(self.0.build());
        answer
    }
}

fn refer(mut to: page_ref::Builder<'_>, page: &Page) {
    to.set_name(&page.name);
    to.set_section(page.section);
}

fn main(mut runtime: Runtime) -> i64 {
    let Ok(endpoint) = runtime.capset().get_typed::<Endpoint>(b"manual") else {
        return EXIT_BUNDLE;
    };
    let Ok(mut ring) = runtime.ring_client() else {
        return EXIT_BUNDLE;
    };
    let Ok(corpus) = Corpus::new() else {
        return EXIT_PAGES;
    };
    let Ok(server) = Server::new(&mut ring, &[endpoint], RECEIVES, PARAMS_BYTES) else {
        return EXIT_SERVING;
    };
    let Err(_) = serve(&mut ring, server, &mut Pages(corpus));
    EXIT_SERVING
}

entry_point!(main);
