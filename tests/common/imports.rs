//! Imports between the files of the program, read from their `use` lines and paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

/// The path of a module, or of a name in one, such as `envelope`, `tag`.
type Names = Vec<String>;

/// One file.
#[derive(Default)]
struct Module {
    /// The names that the file uses.
    uses: Vec<Names>,
    /// Re-exported names, and where they are defined.
    shows: BTreeMap<String, Names>,
}

/// All files below a folder, by module path.
pub struct Imports(BTreeMap<Names, Module>);

impl Imports {
    /// Reads `src`, except for code that is compiled only for tests.
    pub fn of(src: &Path) -> Self {
        let mut files = Vec::new();
        find(src, &mut Vec::new(), &mut files);
        let known: BTreeSet<Names> = files.iter().map(|(module, _)| module.clone()).collect();
        let read = |(module, text): (Names, String)| {
            let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{module:?}: {error}"));
            let mut reader = Reader { here: &module, known: &known, module: Module::default() };
            reader.visit_file(&file);
            let read = reader.module;
            (module, read)
        };
        Self(files.into_iter().map(read).collect())
    }

    /// The imports of each file.
    fn edges(&self) -> BTreeMap<&Names, BTreeSet<&Names>> {
        let of = |(module, read): (&'_ Names, &'_ Module)| -> BTreeSet<&Names> {
            let targets = read.uses.iter().filter_map(|path| self.target(path, 0));
            targets.filter(|target| *target != module).collect()
        };
        self.0.iter().map(|(module, read)| (module, of((module, read)))).collect()
    }

    /// The file that a path leads to, through re-exports.
    fn target(&self, path: &[String], depth: usize) -> Option<&Names> {
        let (module, read) = (0..=path.len()).rev().find_map(|end| self.0.get_key_value(&path[..end]))?;
        let shown = path.get(module.len()).and_then(|name| read.shows.get(name)).filter(|_| depth < 8);
        match shown {
            Some(elsewhere) => self.target(&[elsewhere, &path[module.len() + 1..]].concat(), depth + 1),
            None => Some(module),
        }
    }

    /// A circle of imports, if there is one.
    pub fn circle(&self) -> Option<Vec<String>> {
        let edges = self.edges();
        let mut left: BTreeSet<&Names> = edges.keys().copied().collect();
        // A module that imports none of the remaining ones is in no circle.
        while let Some(free) = left.iter().copied().find(|module| edges[module].is_disjoint(&left)) {
            left.remove(free);
        }
        let mut way = vec![*left.first()?];
        loop {
            let next = *edges[way.last()?].iter().find(|module| left.contains(*module))?;
            if let Some(start) = way.iter().position(|module| *module == next) {
                way.push(next);
                return Some(way[start..].iter().map(|module| module.join("::")).collect());
            }
            way.push(next);
        }
    }

    pub fn len(&self) -> usize {
        self.edges().values().map(BTreeSet::len).sum()
    }
}

fn find(folder: &Path, module: &mut Names, found: &mut Vec<(Names, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            module.push(stem);
            find(&path, module, found);
            module.pop();
        } else if path.extension().is_some_and(|e| e == "rs") && stem != "main" {
            let own = if matches!(stem.as_str(), "mod" | "lib") { None } else { Some(stem) };
            found.push((module.iter().cloned().chain(own).collect(), fs::read_to_string(&path).unwrap()));
        }
    }
}

struct Reader<'a> {
    here: &'a Names,
    known: &'a BTreeSet<Names>,
    module: Module,
}

impl Reader<'_> {
    /// The path from the root; `None` for a name of another crate, or of this file.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let (base, rest) = match path.first()?.as_str() {
            "crate" => (&[][..], &path[1..]),
            "self" => (&self.here[..], &path[1..]),
            "super" => (self.here.get(..self.here.len().checked_sub(ups)?)?, &path[ups..]),
            name if self.known.contains(&[&self.here[..], &[name.to_owned()]].concat()) => (&self.here[..], path),
            _ => return None,
        };
        Some([base, rest].concat())
    }

    fn import(&mut self, tree: &syn::UseTree, prefix: &mut Names, shown: bool) {
        let (name, as_name) = match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix, shown);
                prefix.pop();
                return;
            }
            syn::UseTree::Group(group) => return group.items.iter().for_each(|tree| self.import(tree, prefix, shown)),
            syn::UseTree::Glob(_) => ("*".to_owned(), "*".to_owned()),
            syn::UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            syn::UseTree::Rename(name) => (name.ident.to_string(), name.rename.to_string()),
        };
        let path = match name.as_str() {
            "self" | "*" => prefix.clone(),
            _ => [&prefix[..], &[name]].concat(),
        };
        if let Some(path) = self.absolute(&path) {
            match shown {
                true => drop(self.module.shows.insert(as_name, path)),
                false => self.module.uses.push(path),
            }
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().starts_with("test"),
        _ => false,
    };
    attributes.iter().any(is_test)
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let shown = !matches!(item.vis, syn::Visibility::Inherited);
        if !is_for_tests(&item.attrs) {
            self.import(&item.tree, &mut Vec::new(), shown);
        }
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    // `pub(in crate::wire)` imports nothing.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module.uses.extend((names.len() > 1).then(|| self.absolute(&names)).flatten());
        visit::visit_path(self, path);
    }
}
