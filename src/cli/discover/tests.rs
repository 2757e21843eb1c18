use std::os::unix::ffi::OsStrExt as _;

use super::*;

/// A folder that goes away with the test, spelled as `getcwd` would.
struct Tree {
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Tree {
    fn new(folders: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in folders {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        Self { root, _dir: dir }
    }

    fn find(&self, cwd: &str, home: &str) -> (String, Found) {
        let place = discover(None, None, &self.root.join(cwd), Some(&self.root.join(home))).unwrap();
        assert_eq!(place.passed_over, Vec::<PathBuf>::new());
        let inside = place.folder.strip_prefix(&self.root).unwrap();
        (inside.to_str().unwrap().to_owned(), place.found)
    }

    /// Borders as if other things were true of this machine.
    fn border(&self, change: impl FnOnce(&mut Border)) -> Border {
        let meta = fs::metadata(&self.root).unwrap();
        let mut border = Border { device: meta.dev(), user: meta.uid(), home: None };
        change(&mut border);
        border
    }
}

#[test]
fn the_nearest_queue_below_home_is_found() {
    let tree = Tree::new(&["home/.queuectl", "home/a/.queuectl", "home/a/b/c", "home/d/e", "srv/.queuectl", "srv/x"]);
    for (cwd, folder, found) in [
        ("home", "home/.queuectl", Found::Here),
        ("home/a", "home/a/.queuectl", Found::Here),
        ("home/a/b", "home/a/.queuectl", Found::Above),
        ("home/a/b/c", "home/a/.queuectl", Found::Above),
        ("home/d/e", "home/d/e/.queuectl", Found::Nowhere),
        ("srv/x", "srv/.queuectl", Found::Above),
    ] {
        assert_eq!(tree.find(cwd, "home"), (folder.to_owned(), found), "{cwd}");
    }
    // Without a home above, the search goes on.
    assert_eq!(tree.find("home/d/e", "srv"), ("home/.queuectl".to_owned(), Found::Above));
    assert_eq!(tree.find("home/d/e", "no such folder"), ("home/.queuectl".to_owned(), Found::Above));
}

#[test]
fn nothing_above_home_is_searched_from_home() {
    let tree = Tree::new(&[".queuectl", "home/a"]);
    assert_eq!(tree.find("home", "home"), ("home/.queuectl".to_owned(), Found::Nowhere));
    assert_eq!(tree.find("home/a", "home"), ("home/a/.queuectl".to_owned(), Found::Nowhere));
}

#[test]
fn home_is_known_under_another_name_too() {
    let tree = Tree::new(&["data/me/.queuectl", "data/me/a"]);
    std::os::unix::fs::symlink(tree.root.join("data/me"), tree.root.join("me")).unwrap();
    assert_eq!(tree.find("data/me/a", "me"), ("data/me/a/.queuectl".to_owned(), Found::Nowhere));
    assert_eq!(tree.find("data/me", "me"), ("data/me/.queuectl".to_owned(), Found::Here));
}

#[test]
fn only_folders_count() {
    let tree = Tree::new(&["home/a/.queuectl", "home/a/b/c", "home/a/l/m"]);
    fs::write(tree.root.join("home/a/b/.queuectl"), "").unwrap();
    assert_eq!(tree.find("home/a/b/c", "home"), ("home/a/.queuectl".to_owned(), Found::Above));
    let link = tree.root.join("home/a/l/.queuectl");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert_eq!(tree.find("home/a/l/m", "home"), ("home/a/.queuectl".to_owned(), Found::Above));
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../.queuectl", &link).unwrap();
    assert_eq!(tree.find("home/a/l/m", "home"), ("home/a/l/.queuectl".to_owned(), Found::Above));
}

#[test]
fn folders_of_other_users_are_passed_over_and_said() {
    let tree = Tree::new(&["a/.queuectl", "a/b/.queuectl", "a/b/c"]);
    let cwd = tree.root.join("a/b/c");
    let place = tree.border(|border| border.user += 1).search(&cwd).unwrap();
    assert_eq!((place.folder, place.found), (cwd.join(NAME), Found::Nowhere));
    assert_eq!(place.passed_over[..2], [tree.root.join("a/b/.queuectl"), tree.root.join("a/.queuectl")]);
    // A link counts by its own owner as well: where it leads may be mine.
    let link = tree.root.join("a/b/c/.queuectl");
    std::os::unix::fs::symlink("../.queuectl", &link).unwrap();
    let place = tree.border(|border| border.user += 1).search(&cwd).unwrap();
    assert_eq!(place.passed_over.first(), Some(&link));
}

#[test]
fn the_search_stays_on_its_file_system() {
    let tree = Tree::new(&["a/.queuectl", "a/b/c"]);
    let search = |cwd: &str| tree.border(|border| border.device += 1).search(&tree.root.join(cwd)).unwrap();
    assert_eq!(search("a/b/c").found, Found::Nowhere);
    assert_eq!(search("a").found, Found::Here);
}

#[test]
fn what_is_given_goes_first() {
    let tree = Tree::new(&["a/.queuectl"]);
    let cwd = tree.root.join("a");
    for (db, env, folder, found) in [
        (Some("/q"), Some("/e"), "/q", Found::Given),
        (Some("q/./x/"), None, "q/x", Found::Given),
        (Some("."), None, "", Found::Given),
        (None, Some("/e"), "/e", Found::Given),
        (None, Some("../e"), "../e", Found::Given),
        (None, Some(""), ".queuectl", Found::Here),
        (None, None, ".queuectl", Found::Here),
    ] {
        let place = discover(db.map(OsStr::new), env.map(OsStr::new), &cwd, None).unwrap();
        assert_eq!((place.folder, place.found), (cwd.join(folder), found), "{db:?} {env:?}");
    }
    let refused = discover(Some(OsStr::new("")), Some(OsStr::new("/e")), &cwd, None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[test]
fn names_need_not_be_text() {
    let tree = Tree::new(&[]);
    let project = tree.root.join(OsStr::from_bytes(b"caf\xe9 \n"));
    let below = project.join(OsStr::from_bytes(b"\xff"));
    fs::create_dir_all(&below).unwrap();
    fs::create_dir(project.join(NAME)).unwrap();
    let place = discover(None, None, &below, None).unwrap();
    assert_eq!((place.folder, place.found), (project.join(NAME), Found::Above));
    let place = discover(Some(OsStr::from_bytes(b"q\xff")), None, &below, None).unwrap();
    assert_eq!(place.folder, below.join(OsStr::from_bytes(b"q\xff")));
}

#[test]
fn deep_folders_and_folders_that_are_gone() {
    let tree = Tree::new(&[".queuectl"]);
    // Long enough that the name of a queue no longer fits what the kernel takes as a path.
    let mut deep = tree.root.clone();
    while deep.as_os_str().len() + 6 < 4_090 {
        deep.push("d".repeat(200.min(4_090 - deep.as_os_str().len())));
        fs::create_dir(&deep).unwrap();
    }
    let place = discover(None, None, &deep, None).unwrap();
    assert_eq!((place.folder, place.found), (tree.root.join(NAME), Found::Above));
    assert_eq!(discover(None, None, &tree.root.join("gone"), None).unwrap_err().kind(), ErrorKind::NotFound);
}
