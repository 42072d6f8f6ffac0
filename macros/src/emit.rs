//! From the model to code. Everything it calls is in `annals::__derive`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{LitInt, LitStr, Path};

use crate::parse::{Alias, Events, Form, Kind};

/// A kind that is read, and how.
struct Known<'a> {
    kind: &'a LitStr,
    /// The newest version it was ever stored with, as far as this program knows.
    version: u16,
    /// The step at `n - 1` is the one an event of version `n` begins with.
    steps: Vec<&'a Path>,
    /// The variant it is read as, by its number.
    variant: usize,
    is_former: bool,
    now: Option<&'a LitStr>,
}

pub(crate) fn code(events: &Events) -> TokenStream {
    let (name, annals) = (&events.name, &events.annals);
    let known: Vec<Known<'_>> =
        events.kinds.iter().enumerate().flat_map(|(variant, kind)| all_known(variant, kind)).collect();
    let form = match events.form {
        Form::Enum => quote!(__annals::Form::Enum),
        Form::Unit => quote!(__annals::Form::Unit),
        Form::Struct => quote!(__annals::Form::Struct),
    };
    let table = known.iter().map(|known| known.entry(&form));
    let (names, numbers): (Vec<&LitStr>, Vec<usize>) =
        known.iter().enumerate().map(|(number, known)| (known.kind, number)).unzip();
    let kind = by_variant(events, |kind| kind.kind.to_token_stream());
    let version = by_variant(events, |kind| kind.version.to_token_stream());
    let number = by_variant(events, |kind| {
        let own = known.iter().position(|known| known.now.is_none() && std::ptr::eq(known.kind, &kind.kind));
        LitInt::new(&own.expect("each kind is known").to_string(), kind.kind.span()).to_token_stream()
    });
    quote! {
        const _: () = {
            use #annals::__derive as __annals;

            // A variant that its owner deprecates is still stored and read; the warning is for those who make new ones.
            #[automatically_derived]
            #[allow(deprecated)]
            impl __annals::EventData for #name {
                fn kind(&self) -> &str {
                    #kind
                }

                fn schema_version(&self) -> u16 {
                    #version
                }

                fn encode(&self, out: &mut __annals::Vec<u8>) -> __annals::Result<(), __annals::Error> {
                    let number: usize = #number;
                    __annals::encode(self, &<Self as __annals::DomainEvent>::KINDS[number], out)
                }
            }

            #[automatically_derived]
            impl __annals::DomainEvent for #name {
                const KINDS: &'static [__annals::KnownKind] = &[#(#table),*];

                fn knows(kind: &str) -> bool {
                    __annals::matches!(kind, #(#names)|*)
                }

                fn from_recorded(event: &__annals::RecordedEvent) -> __annals::Result<Self, __annals::Error> {
                    let number: usize = match event.kind() {
                        #(#names => #numbers,)*
                        _ => return __annals::Err(__annals::unknown_kind::<Self>(event)),
                    };
                    __annals::read(event, &<Self as __annals::DomainEvent>::KINDS[number])
                }
            }
        };
    }
}

/// Something that depends on the variant a value is.
fn by_variant(events: &Events, answer: impl Fn(&Kind) -> TokenStream) -> TokenStream {
    let answers = events.kinds.iter().map(|kind| (&kind.variant, answer(kind)));
    let (variants, answers): (Vec<_>, Vec<_>) = answers.unzip();
    match events.form {
        Form::Enum => quote!(match self { #(Self::#variants { .. } => #answers,)* }),
        Form::Unit | Form::Struct => quote!(#(#answers)*),
    }
}

fn all_known(variant: usize, kind: &Kind) -> Vec<Known<'_>> {
    let own = Known {
        kind: &kind.kind,
        version: kind.version,
        steps: kind.upcasters.iter().collect(),
        variant,
        is_former: kind.is_former,
        now: None,
    };
    std::iter::once(own).chain(kind.aliases.iter().map(|alias| former(variant, kind, alias))).collect()
}

/// A former kind goes through its own upcasters, and on through those of the kind it became.
fn former<'a>(variant: usize, kind: &'a Kind, alias: &'a Alias) -> Known<'a> {
    let (version, steps) = match &alias.own {
        None => (kind.version, kind.upcasters.iter().collect()),
        Some((own, to)) => {
            let version = u16::try_from(own.len()).expect("there is one of each version");
            (version, own.iter().chain(&kind.upcasters[usize::from(*to) - 1..]).collect())
        }
    };
    Known { kind: &alias.kind, version, steps, variant, is_former: kind.is_former, now: Some(&kind.kind) }
}

impl Known<'_> {
    fn entry(&self, form: &TokenStream) -> TokenStream {
        let (kind, version) = (self.kind, self.version);
        let former = quote!(__annals::Form::FormerVariant);
        let form = if self.is_former { &former } else { form };
        let variant = LitInt::new(&self.variant.to_string(), kind.span());
        let steps = self.steps.iter().map(|function| {
            let name = quote!(#function).to_string().replace(' ', "");
            quote!(__annals::Upcaster::new(#name, |value| __annals::upcast(#function, value)))
        });
        let now = match self.now {
            Some(now) => quote!(__annals::Some(#now)),
            None => quote!(__annals::None),
        };
        quote!(__annals::KnownKind::new(#kind, #version, #form, #variant, #now, &[#(#steps),*]))
    }
}
