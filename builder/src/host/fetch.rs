//! Downloads over HTTP: several at a time, resumed where they stopped, checked before use.
//!
//! Nothing that arrives is trusted: a file gets its final name only when its length and SHA-256
//! are those that were asked for. An attempt that made progress is not counted against the
//! retries, so that a slow or shaky line gets there in the end.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::mirror::redacted;
use super::progress::Task;
use super::store::explain_full;
use crate::debian::digest::{Digest, Hasher};
use crate::error::{Context, Error, Result};

/// Attempts without progress before giving up.
const ATTEMPTS: u32 = 4;

/// The first pause between attempts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// Longest silence of a server in the middle of a body.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest wait for a connection and for the head of a response.
const HEAD: Duration = Duration::from_secs(20);

/// Why there is nothing to use.
#[derive(Debug)]
pub enum Failure {
    /// The server answers and does not have it (404, 410).
    NotFound,
    /// Everything else.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// The failure as an error, for what has to be there.
    pub fn into_error(self, url: &str) -> Error {
        match self {
            Self::NotFound => Error::new(format!("{} does not exist", redacted(url)))
                .hint("check the address of the mirror (--mirror, IOTA_MIRROR, apt sources)"),
            Self::Other(error) => error,
        }
    }
}

/// What one attempt ran into.
enum Trouble {
    /// Worth another attempt.
    Again(Error),
    /// Final.
    Stop(Failure),
}

/// What a file has to be.
pub struct Expected<'a> {
    /// Length in bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: &'a Digest,
}

/// Keeps connections open between downloads; cheap to clone, for threads.
#[derive(Clone)]
pub struct Fetcher {
    agent: Agent,
    first_pause: Duration,
    headers: Option<Headers>,
}

/// Headers of one request.
type Headers = Arc<dyn Fn() -> Vec<(&'static str, String)> + Send + Sync>;

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

impl Fetcher {
    /// A fetcher that obeys the proxy variables of the environment.
    pub fn new() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("iota/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(HEAD))
            .timeout_recv_response(Some(HEAD))
            .timeout_per_read(Some(SILENCE))
            .build();
        Self { agent: config.new_agent(), first_pause: FIRST_PAUSE, headers: None }
    }

    /// With this header in every request, but not where a redirect leads to.
    pub fn with_authorization(self, authorization: Option<String>) -> Self {
        match authorization {
            Some(value) => self.with_headers(move || vec![("authorization", value.clone())]),
            None => self,
        }
    }

    /// With headers that are made anew for each request.
    pub fn with_headers(
        self,
        headers: impl Fn() -> Vec<(&'static str, String)> + Send + Sync + 'static,
    ) -> Self {
        Self { headers: Some(Arc::new(headers)), ..self }
    }

    /// A small file into memory; more than `limit` bytes are refused.
    pub fn bytes(&self, url: &str, limit: u64) -> std::result::Result<Vec<u8>, Failure> {
        self.retry(url, || {
            let mut response = self.get(url, 0)?;
            let mut bytes = Vec::new();
            let body = response.body_mut().with_config().limit(u64::MAX).reader();
            body.take(limit + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| (Trouble::Again(interrupted(url, error)), false))?;
            if bytes.len() as u64 > limit {
                let error = Error::new(format!("{} is larger than {limit} bytes", redacted(url)));
                return Err((Trouble::Stop(Failure::Other(error)), false));
            }
            Ok(bytes)
        })
    }

    /// A file of known content to `target`, by way of `part`, which survives an interruption and
    /// is continued the next time. Counts what arrives on `task`.
    ///
    /// Two processes may do this at once for the same file: one waits and finds it done.
    pub fn file(
        &self,
        url: &str,
        part: &Path,
        target: &Path,
        expected: &Expected<'_>,
        task: &Task,
    ) -> std::result::Result<(), Failure> {
        let Some(mut partial) = Partial::open(part, target, expected)? else {
            task.add(expected.size);
            return Ok(());
        };
        // A part that turns out wrong is thrown away once: an interrupted download of a mirror in
        // the middle of an update. Wrong twice is a wrong mirror.
        let mut fresh = partial.length() == 0;
        task.add(partial.length());
        loop {
            let result = self.retry(url, || {
                let before = partial.length();
                let outcome = self.append(url, &mut partial, expected, task);
                outcome.map_err(|trouble| (trouble, partial.length() > before))
            });
            if let Err(failure) = result {
                task.take_back(partial.length());
                return Err(failure);
            }
            if partial.hasher.length == expected.size && partial.hasher.finish() == *expected.sha256
            {
                return Ok(partial.finish(part, target)?);
            }
            task.take_back(partial.length());
            partial.clear()?;
            if fresh {
                let _ = fs::remove_file(part);
                return Err(Failure::Other(mismatch(url, expected)));
            }
            fresh = true;
        }
    }

    /// Calls `attempt` until it succeeds, stops, or has failed too often without progress.
    fn retry<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut() -> std::result::Result<T, (Trouble, bool)>,
    ) -> std::result::Result<T, Failure> {
        let mut failed = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err((Trouble::Stop(failure), _)) => return Err(failure),
                Err((Trouble::Again(error), progress)) => {
                    failed = if progress { 1 } else { failed + 1 };
                    if failed >= ATTEMPTS {
                        let what = format!("cannot fetch {}", redacted(url));
                        return Err(Failure::Other(Error::caused(what, error).hint(
                            "check the network; what has arrived is kept. \
                             Without a network: --offline uses the cache alone",
                        )));
                    }
                    thread::sleep(self.first_pause * 2_u32.pow(failed - 1));
                }
            }
        }
    }

    fn get(&self, url: &str, offset: u64) -> std::result::Result<Response<Body>, (Trouble, bool)> {
        let mut request = self.agent.get(url);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        for (name, value) in self.headers.iter().flat_map(|headers| headers()) {
            request = request.header(name, value);
        }
        let again = |error| (Trouble::Again(error), false);
        let response = request.call().map_err(|error| {
            again(Error::caused(format!("no answer from {}", host(url)), error))
        })?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            404 | 410 => Err((Trouble::Stop(Failure::NotFound), false)),
            // Our part is longer than the file is now.
            416 if offset > 0 => Ok(response),
            code @ (408 | 425 | 429 | 500..) => {
                Err(again(Error::new(format!("{} answers {code}", host(url)))))
            }
            code => {
                let error = Error::new(format!("{} answers {code}", redacted(url)))
                    .hint("check the address of the mirror (--mirror, IOTA_MIRROR, apt sources)");
                Err((Trouble::Stop(Failure::Other(error)), false))
            }
        }
    }

    /// Adds to the part whatever the server sends after it.
    fn append(
        &self,
        url: &str,
        partial: &mut Partial,
        expected: &Expected<'_>,
        task: &Task,
    ) -> std::result::Result<(), Trouble> {
        let offset = partial.length();
        if offset >= expected.size {
            return Ok(());
        }
        let mut response = self.get(url, offset).map_err(|(trouble, _)| trouble)?;
        if offset > 0 && !continues_at(&response, offset) {
            // The server does not do ranges, or has a shorter file: from the start.
            task.take_back(offset);
            partial.clear().map_err(|error| Trouble::Stop(error.into()))?;
            if response.status().as_u16() != 200 {
                return Err(Trouble::Again(Error::new("the server has another file now")));
            }
        }
        // One byte more than expected shows a file that is too long, without reading all of it.
        let rest = expected.size - partial.length() + 1;
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader().take(rest);
        let mut buffer = vec![0; 128 << 10];
        loop {
            match body.read(&mut buffer) {
                Ok(0) if partial.length() < expected.size => {
                    return Err(Trouble::Again(Error::new(format!(
                        "{} sent {} of {} bytes",
                        host(url),
                        partial.length(),
                        expected.size
                    ))));
                }
                Ok(0) => return Ok(()),
                Ok(count) => {
                    task.add(count as u64);
                    partial.push(&buffer[..count]).map_err(|error| Trouble::Stop(error.into()))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::Again(interrupted(url, error))),
            }
        }
    }
}

/// True for a 206 that starts where our part ends.
fn continues_at(response: &Response<Body>, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status().as_u16() == 206
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

fn interrupted(url: &str, error: io::Error) -> Error {
    Error::caused(format!("the connection to {} broke", host(url)), error)
}

fn mismatch(url: &str, expected: &Expected<'_>) -> Error {
    Error::new(format!(
        "{} is not what it should be: its size or SHA-256 differs from {} bytes, {}",
        redacted(url),
        expected.size,
        expected.sha256
    ))
    .hint("the mirror may be in the middle of an update: try again, or name another with --mirror")
}

fn host(url: &str) -> String {
    let url = redacted(url);
    let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    host.split('/').next().unwrap_or(host).to_owned()
}

/// A download in the making, locked against other processes for as long as this lives.
struct Partial {
    file: File,
    hasher: Hasher,
}

impl Partial {
    /// Opens or makes the part and waits for its lock; `None` if `target` is there by then.
    fn open(part: &Path, target: &Path, expected: &Expected<'_>) -> Result<Option<Self>> {
        let what = || format!("cannot write {}", part.display());
        loop {
            let mut options = File::options();
            let file = options.read(true).append(true).create(true).open(part).context(what)?;
            file.lock().context(what)?;
            // Whoever held the lock may have finished, and so renamed, the file that we opened.
            let ours = same_file(&file, part);
            if fs::metadata(target).is_ok_and(|target| target.len() == expected.size) {
                if ours {
                    let _ = fs::remove_file(part);
                }
                return Ok(None);
            }
            if !ours {
                continue;
            }
            if file.metadata().context(what)?.len() > expected.size {
                file.set_len(0).context(what)?;
            }
            let mut partial = Self { hasher: Hasher::default(), file };
            partial.rehash().context(what)?;
            return Ok(Some(partial));
        }
    }

    fn rehash(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.hasher.update(&buffer[..count]),
            }
        }
    }

    fn length(&self) -> u64 {
        self.hasher.length
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        let written = self.file.write_all(bytes).map_err(explain_full);
        written.context(|| "cannot keep what was fetched".to_owned())
    }

    fn clear(&mut self) -> Result<()> {
        self.hasher = Hasher::default();
        self.file.set_len(0).context(|| "cannot empty a broken download".to_owned())
    }

    fn finish(self, part: &Path, target: &Path) -> Result<()> {
        fs::rename(part, target).context(|| format!("cannot make {}", target.display()))
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(one), Ok(two)) = (file.metadata(), fs::metadata(path)) else { return false };
    (one.dev(), one.ino()) == (two.dev(), two.ino())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::host::progress::{Progress, Unit};
    use crate::host::test_server::{Fault, TestServer};

    struct Setup {
        server: TestServer,
        directory: tempfile::TempDir,
        content: Vec<u8>,
    }

    impl Setup {
        fn new() -> Self {
            let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
            let server = TestServer::start();
            server.put("file", content.clone());
            Self { server, directory: tempfile::tempdir().unwrap(), content }
        }

        fn part(&self) -> PathBuf {
            self.directory.path().join("part")
        }

        fn target(&self) -> PathBuf {
            self.directory.path().join("target")
        }

        fn fetch(&self) -> std::result::Result<(), Failure> {
            let sha256 = Digest::of(&self.content);
            let expected = Expected { size: self.content.len() as u64, sha256: &sha256 };
            let task = Progress::quiet().task("", Unit::Bytes, expected.size);
            let mut fetcher = Fetcher::new();
            fetcher.first_pause = Duration::from_millis(1);
            let url = format!("{}/file", self.server.address());
            fetcher.file(&url, &self.part(), &self.target(), &expected, &task)
        }

        fn check_done(&self, requests: &[&str]) {
            assert_eq!(fs::read(self.target()).unwrap(), self.content);
            assert!(!self.part().exists());
            assert_eq!(self.server.requests(), requests);
        }

        fn failure(&self) -> Error {
            let failure = self.fetch().unwrap_err();
            assert!(!self.target().exists());
            match failure {
                Failure::Other(error) => error,
                Failure::NotFound => panic!("not found"),
            }
        }
    }

    #[test]
    fn a_file_is_fetched_once() {
        let setup = Setup::new();
        setup.fetch().unwrap();
        setup.check_done(&["file"]);
        setup.fetch().unwrap();
        setup.check_done(&[]);
    }

    #[test]
    fn an_interrupted_download_goes_on_where_it_stopped() {
        let setup = Setup::new();
        fs::write(setup.part(), &setup.content[..150_000]).unwrap();
        setup.fetch().unwrap();
        setup.check_done(&["file 150000-"]);
    }

    #[test]
    fn a_line_that_breaks_again_and_again_gets_there_as_long_as_it_progresses() {
        let setup = Setup::new();
        setup.server.fault(Fault::BreakAfter(30_000));
        setup.fetch().unwrap();
        let requests = setup.server.requests();
        assert_eq!(requests.len(), 7, "{requests:?}");
        assert_eq!(requests[6], "file 180000-");
        setup.check_done(&[]);
    }

    #[test]
    fn a_server_without_ranges_starts_over() {
        let setup = Setup::new();
        fs::write(setup.part(), &setup.content[..150_000]).unwrap();
        setup.server.fault(Fault::NoRanges);
        setup.fetch().unwrap();
        setup.check_done(&["file 150000-"]);
    }

    #[test]
    fn a_line_that_breaks_before_any_progress_is_given_up() {
        let setup = Setup::new();
        setup.server.fault(Fault::BreakWithoutRanges(30_000));
        let error = setup.failure();
        assert!(error.chain().starts_with("cannot fetch http://"), "{}", error.chain());
        assert_eq!(setup.server.requests().len(), 4);
    }

    #[test]
    fn a_part_of_something_else_is_thrown_away_once() {
        for part in [vec![7; 1000], vec![7; 200_000], vec![7; 300_000]] {
            let setup = Setup::new();
            fs::write(setup.part(), &part).unwrap();
            setup.fetch().unwrap();
            assert_eq!(fs::read(setup.target()).unwrap(), setup.content);
        }
    }

    #[test]
    fn a_file_with_another_content_is_refused_and_not_kept() {
        let setup = Setup::new();
        setup.server.fault(Fault::Flip);
        let error = setup.failure();
        assert!(error.to_string().contains("is not what it should be"), "{error}");
        assert!(!setup.part().exists());
        assert_eq!(setup.server.requests(), ["file"]);
        let setup = Setup::new();
        setup.server.put("file", [&setup.content[..], b"more"].concat());
        assert!(setup.failure().to_string().contains("is not what it should be"));
    }

    #[test]
    fn a_file_that_is_too_short_is_refused_and_what_came_is_kept() {
        let setup = Setup::new();
        setup.server.put("file", &setup.content[..1000]);
        let error = setup.failure();
        assert!(error.chain().contains("sent 1000 of 200000 bytes"), "{}", error.chain());
        setup.server.put("file", setup.content.clone());
        setup.server.requests();
        setup.fetch().unwrap();
        setup.check_done(&["file 1000-"]);
    }

    #[test]
    fn a_busy_server_is_asked_again_and_one_that_stays_busy_is_an_error_with_a_hint() {
        let setup = Setup::new();
        setup.server.fault(Fault::Busy(3));
        setup.fetch().unwrap();
        setup.check_done(&["file"; 4]);
        let setup = Setup::new();
        setup.server.fault(Fault::Busy(4));
        let error = setup.failure();
        assert!(error.chain().ends_with("answers 500"), "{}", error.chain());
        assert!(error.next_step().unwrap().contains("--offline"));
    }

    #[test]
    fn a_missing_file_is_told_apart_from_a_missing_server() {
        let setup = Setup::new();
        setup.server.remove("file");
        assert!(matches!(setup.fetch(), Err(Failure::NotFound)));
        assert_eq!(setup.server.requests(), ["file"]);
        let nobody = Fetcher { first_pause: Duration::ZERO, ..Fetcher::new() };
        // Port 1 of this machine: nobody listens there.
        let Err(Failure::Other(error)) = nobody.bytes("http://me:secret@127.0.0.1:1/x", 10) else {
            panic!("nobody listens there");
        };
        let chain = error.chain();
        assert!(chain.starts_with("cannot fetch http://127.0.0.1:1/x: no answer from 127.0.0.1:1"));
        assert!(!chain.contains("secret"), "{chain}");
    }

    #[test]
    fn bytes_beyond_the_limit_are_refused() {
        let setup = Setup::new();
        let url = format!("{}/file", setup.server.address());
        assert_eq!(Fetcher::new().bytes(&url, 200_000).unwrap(), setup.content);
        assert!(matches!(Fetcher::new().bytes(&url, 199_999), Err(Failure::Other(_))));
    }

    #[test]
    fn two_builds_that_want_the_same_file_fetch_it_once() {
        let setup = Setup::new();
        thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| setup.fetch().unwrap()));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        setup.check_done(&["file"]);
    }
}
