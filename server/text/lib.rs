//! Between people's text and the model's tokens.
//!
//! [`Text`] has all that a model's files say about it: the [`Tokenizer`] (from a GGUF file's own
//! metadata or from a Hugging Face directory), the [`ChatTemplate`], the tokens that end an answer.
//! A prompt goes in by [`Text::encode_prompt`]; an answer comes out by a [`Detokenizer`] of its own.
//!
//! What a client writes is never read as control tokens, whatever it contains.
//!
//! Reading order: [`tokenizer`] with `added`, `marker` and `pieces`; `gguf`, `directory`, `bpe` and
//! [`family`], which build one; [`template`] with `generation`, `python`, `clock` and `shield`; [`detokenizer`] with `stop`.

mod added;
mod bpe;
mod clock;
pub mod detokenizer;
mod directory;
pub mod error;
pub mod family;
mod generation;
mod gguf;
mod marker;
mod pieces;
mod python;
mod shield;
mod stop;
pub mod template;
pub mod tokenizer;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use code_explainer_weights::{Checkpoint, Metadata, PackedModel};

pub use detokenizer::{Detokenizer, Step};
pub use error::TextError;
pub use family::Family;
pub use template::{ChatTemplate, Message, Role};
pub use tokenizer::Tokenizer;

use added::Specials;
use marker::ends_answer;
use shield::Shield;

/// A model's tokenizer, chat template and end tokens. Immutable; share it by `Arc`.
#[derive(Debug)]
pub struct Text {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    eos: Vec<u32>,
    /// What special tokens begin with.
    firsts: Vec<char>,
}

/// A prompt, ready for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// The exact text.
    pub text: String,
    /// Its tokens. They begin with a begin-of-sequence token if the model's chat template, or for a
    /// plain prompt its tokenizer, says so.
    pub tokens: Vec<u32>,
}

impl Text {
    /// Takes tokenizer and chat template from a model's files.
    ///
    /// # Errors
    /// Says which key or file is missing or wrong. A chat template that cannot lay out a system and
    /// a user message, nor a user message alone, is an error here and not with the first request.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, TextError> {
        let eos = &checkpoint.config().eos;
        match (checkpoint.gguf_metadata(), checkpoint.directory()) {
            (Some(metadata), _) => Self::from_gguf(metadata, eos),
            (None, Some(directory)) => Self::from_directory(directory, eos),
            (None, None) => Err(TextError::NoSource),
        }
    }

    /// Takes tokenizer and chat template from what lies beside a packed model's weights.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_packed(model: &PackedModel) -> Result<Self, TextError> {
        let eos = &model.config().eos;
        match model.gguf_metadata() {
            Some(metadata) => Self::from_gguf(metadata, eos),
            None => Self::from_directory(model.path(), eos),
        }
    }

    /// Takes tokenizer and chat template from GGUF metadata. `eos` are end tokens known from
    /// elsewhere.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_gguf(metadata: &Metadata, eos: &[u32]) -> Result<Self, TextError> {
        let tokenizer = gguf::tokenizer(metadata)?;
        let template = gguf::chat_template(metadata)?;
        let template = template.filter(|source| !is_empty(source)).map(|source| {
            let place = format!("GGUF metadata {}", gguf::CHAT_TEMPLATE);
            ChatTemplate::new(source.to_owned(), place, variables(&tokenizer))
        });
        Self::new(tokenizer, template.transpose()?, eos)
    }

    /// Takes tokenizer and chat template from a Hugging Face directory: `tokenizer.json` (or
    /// `vocab.json` and `merges.txt`), and `chat_template.jinja` or the template in
    /// `tokenizer_config.json`. `eos` are end tokens known from elsewhere.
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_directory(directory: &Path, eos: &[u32]) -> Result<Self, TextError> {
        let files = directory::TokenizerFiles::open(directory)?;
        let tokenizer = files.tokenizer()?;
        let template = files
            .chat_template()?
            .filter(|(source, _)| !is_empty(source))
            .map(|(source, place)| ChatTemplate::new(source, place, variables(&tokenizer)));
        Self::new(tokenizer, template.transpose()?, eos)
    }

    fn new(
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        eos: &[u32],
    ) -> Result<Self, TextError> {
        let mut all = eos.to_vec();
        all.extend(tokenizer.special().eos);
        all.extend(&tokenizer.special().end_of_turn);
        // A model's files do not always name all of them.
        let named = tokenizer
            .special_tokens()
            .filter(|token| ends_answer(token))
            .filter_map(|token| tokenizer.token_id(token));
        let mut named: Vec<u32> = named.collect();
        named.sort_unstable();
        all.extend(named);
        let mut eos = Vec::with_capacity(all.len());
        for id in all {
            if !eos.contains(&id) {
                eos.push(id);
            }
        }

        let mut firsts: Vec<char> = tokenizer
            .special_tokens()
            .filter_map(|token| token.chars().next())
            .collect();
        firsts.sort_unstable();
        firsts.dedup();
        let text = Self {
            tokenizer: Arc::new(tokenizer),
            template,
            eos,
            firsts,
        };
        text.try_template()?;
        Ok(text)
    }

    /// The prompt for one question: the chat template's layout of a system and a user message, up to
    /// where the answer begins.
    ///
    /// A model whose template has no place for a system message gets it before the user's, with an
    /// empty line between. A model without a template gets the plain text
    /// `{system}\n\n{user}\n`, and its begin-of-sequence token if it wants one.
    ///
    /// The tokens are those of the whole text, as the reference encodes it, except that nothing in
    /// `system` or `user` becomes a special token.
    ///
    /// # Errors
    /// [`TextError::Render`] if the template refuses the messages.
    pub fn encode_prompt(
        &self,
        system: Option<&str>,
        user: &str,
    ) -> Result<EncodedPrompt, TextError> {
        let Some(template) = &self.template else {
            let text = format!("{}\n", joined(system, user));
            let mut tokens = self.tokenizer.prefix().to_vec();
            tokens.extend(self.tokenizer.encode(&text, false)?);
            return Ok(EncodedPrompt { text, tokens });
        };
        let texts = [template.source(), system.unwrap_or_default(), user];
        let shield = Shield::new(&self.firsts, &texts);
        let system = system.map(|system| shield.cover(system));
        let rendered = render(template, system.as_deref(), &shield.cover(user))?;
        let prompt = shield.uncover(&rendered);
        let tokens = self
            .tokenizer
            .encode_with(&prompt.text, Specials::Except(&prompt.literal))?;
        Ok(EncodedPrompt {
            text: prompt.text,
            tokens,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// A detokenizer for one answer.
    pub fn detokenizer<S: AsRef<str>>(&self, stops: &[S]) -> Detokenizer {
        Detokenizer::new(Arc::clone(&self.tokenizer), stops)
    }

    /// Every token that ends an answer, without duplicates.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// One more than the largest token id. The model may have more rows, as padding.
    pub fn vocabulary_size(&self) -> usize {
        self.tokenizer.vocabulary_size()
    }

    /// Tries the template, so that a model that cannot be prompted fails when it is loaded.
    fn try_template(&self) -> Result<(), TextError> {
        let Some(template) = &self.template else {
            return Ok(());
        };
        let user = "def question(): pass";
        let rendered = render(template, Some("Explain."), user)?;
        if rendered.contains(user) {
            Ok(())
        } else {
            Err(template.failed("the user's message does not appear in the prompt".to_owned()))
        }
    }
}

fn render(template: &ChatTemplate, system: Option<&str>, user: &str) -> Result<String, TextError> {
    let now = SystemTime::now();
    let Some(instruction) = system else {
        return template.render(&[question(user)], true, now);
    };
    let instruction = Message {
        role: Role::System,
        content: instruction,
    };
    let separate = template.render(&[instruction, question(user)], true, now);
    // Some templates refuse a system message, and some leave it out without a word.
    let said = instruction.content.trim();
    if separate.as_ref().is_ok_and(|text| text.contains(said)) {
        return separate;
    }
    let merged = joined(system, user);
    let merged = template.render(&[question(&merged)], true, now);
    merged.or(separate)
}

/// An empty template is none, as in transformers.
fn is_empty(template: &str) -> bool {
    template.trim().is_empty()
}

fn question(content: &str) -> Message<'_> {
    Message {
        role: Role::User,
        content,
    }
}

fn joined(system: Option<&str>, user: &str) -> String {
    match system {
        Some(system) => format!("{system}\n\n{user}"),
        None => user.to_owned(),
    }
}

/// The special tokens that a template may name.
fn variables(tokenizer: &Tokenizer) -> Vec<(&'static str, String)> {
    let special = tokenizer.special();
    [
        ("bos_token", special.bos),
        ("eos_token", special.eos),
        ("unk_token", special.unknown),
        ("pad_token", special.padding),
    ]
    .into_iter()
    .filter_map(|(name, id)| Some((name, tokenizer.token(id?)?)))
    .collect()
}
