//! The host's side of a session against a scripted device: refusals, broken streams and silence,
//! each as one clear message; and recordings, which replay without a device.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use jaq_deploy::firmware::Parts;
use jaq_deploy::link::replay::{About, Recorder, Replay};
use jaq_deploy::link::{Expected, LinkError, Session, Wire};
use jaq_deploy::validate::{Ask, Device};
use jaq_network::Provenance;
use jaq_shared::protocol::{
    ClockUnit, ErrorCode, FRAME, Hello, Opened, Rate, Response, VERSION, encode,
};
use jaq_shared::{format, kernels};

const HELLO: Hello<'static> = Hello {
    protocol: VERSION,
    format: format::VERSION,
    registry: 0,
    board: "desk",
    build: "b1",
    rate: Rate { unit: ClockUnit::Cycles, num: 1, den: 2 },
    overhead: 4,
    embedded: 0,
    inputs: 0,
    capacity: 4096,
    arena: 4096,
};

/// A device that answers every frame with the next piece of a script; `None` hangs up.
struct Script {
    answers: VecDeque<Option<Vec<u8>>>,
    ready: VecDeque<Option<Vec<u8>>>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Option<Vec<u8>>>) -> Self {
        Script { answers: answers.into_iter().collect(), ready: VecDeque::new() }
    }
}

impl Wire for Script {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes != [0] {
            self.ready.extend(self.answers.pop_front());
        }
        Ok(())
    }

    fn receive(&mut self, _: Duration) -> io::Result<Option<Vec<u8>>> {
        match self.ready.pop_front() {
            None => Ok(None),
            Some(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(bytes) => Ok(bytes),
        }
    }

    fn last_words(&mut self) -> String {
        "the lights went out".into()
    }

    fn provenance(&self) -> Provenance {
        Provenance::Measured
    }

    fn via(&self) -> &'static str {
        "script"
    }
}

fn frames(responses: &[Response<'_>]) -> Option<Vec<u8>> {
    let frame = |response| encode(response, &mut [0; FRAME]).unwrap().to_vec();
    Some(responses.iter().flat_map(frame).collect())
}

fn hello() -> Hello<'static> {
    Hello { registry: kernels::registry_hash(), ..HELLO }
}

fn start(answers: impl IntoIterator<Item = Option<Vec<u8>>>) -> Result<Session, LinkError> {
    let expected = Expected { board: "desk".into(), build: Some("b1".into()) };
    Session::start(Script::new(answers), &expected, Duration::from_millis(50))
}

fn refusal(hello: Hello<'_>) -> String {
    start([frames(&[Response::Hello(hello)])]).err().expect("a refusal").to_string()
}

#[test]
fn whoever_does_not_match_is_refused_with_both_sides_named() {
    for (hello, names) in [
        (Hello { protocol: VERSION + 7, ..hello() }, ["protocol version", "10", "3"]),
        (Hello { format: 9, ..hello() }, ["model format version", "9", "1"]),
        (Hello { board: "shelf", ..hello() }, ["board", "shelf", "desk"]),
        (Hello { build: "b0", ..hello() }, ["build", "b0", "b1"]),
        (Hello { registry: 0xdead, ..hello() }, ["kernel registry", "0000dead", "jaq-host deploy"]),
    ] {
        let error = refusal(hello);
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
    }
}

#[test]
fn a_hello_of_a_later_protocol_is_known_by_its_version() {
    // Version 300 with fields this build has never seen.
    let mut payload = vec![0, 0xac, 0x02];
    payload.extend_from_slice(&[0xff; 30]);
    let crc = jaq_shared::format::crc32(&[&payload]);
    payload.extend_from_slice(&crc.to_le_bytes());
    let mut frame = Vec::new();
    for part in payload.split(|byte| *byte == 0) {
        frame.push(part.len() as u8 + 1);
        frame.extend_from_slice(part);
    }
    frame.push(0);
    let error = start([Some(frame)]).err().unwrap().to_string();
    assert!(error.contains("protocol version is 300"), "{error}");
}

#[test]
fn silence_hang_ups_and_noise_are_told_apart() {
    let error = start([]).err().unwrap().to_string();
    assert!(error.contains("0.05 s for hello") && error.contains("--timeout"), "{error}");
    let error = start([None]).err().unwrap().to_string();
    assert!(error.contains("gone") && error.contains("the lights went out"), "{error}");
    let error = start([Some(vec![1, 2, 3, 0])]).err().unwrap();
    assert!(matches!(error, LinkError::Frame { what: "hello", .. }), "{error}");
    let error = start([frames(&[Response::Accepted])]).err().unwrap().to_string();
    assert!(error.contains("something else: Accepted"), "{error}");
    let fault = Response::Error { code: ErrorCode::Fault, text: "hard fault at pc 0x42" };
    let error = start([frames(&[fault])]).err().unwrap().to_string();
    assert!(error.contains("Fault") && error.contains("0x42"), "{error}");
}

const MODEL: [u8; 32] = [5; 32];

fn opened() -> Response<'static> {
    Response::Opened(Opened {
        model_bytes: MODEL.len() as u32,
        layers: 2,
        arena_bytes: 64,
        input_bytes: 3,
        output_bytes: 4,
        crc: 0x05050505,
    })
}

/// A device that opens [`MODEL`] and runs it once.
fn script(inference: &[Response<'_>]) -> Script {
    Script::new([
        frames(&[Response::Hello(hello())]),
        frames(&[Response::Accepted]),
        frames(&[opened()]),
        frames(&[Response::Accepted]),
        frames(inference),
    ])
}

fn layer(index: u32) -> Response<'static> {
    Response::Layer { index, count: 10 * u64::from(index + 1), crc: 7 + index }
}

const OUTPUT: Response<'static> = Response::Bytes { offset: 0, bytes: &[1, 2, 3, 4] };
const DONE: Response<'static> = Response::Done { count: 40, stack_bytes: 900, arena_bytes: 60 };

fn infer(wire: impl Wire + 'static) -> Result<(u64, Vec<u64>, Vec<u8>), LinkError> {
    let expected = Expected { board: "desk".into(), build: None };
    let mut session = Session::start(wire, &expected, Duration::from_millis(50))?;
    session.open(&MODEL)?;
    let found = session.infer(&[1, 2, 3], Ask::Layers)?;
    Ok((found.total, found.layers, found.output))
}

#[test]
fn an_inference_is_taken_whole_or_not_at_all() {
    let good = infer(script(&[layer(0), layer(1), OUTPUT, DONE])).unwrap();
    assert_eq!(good, (40, vec![10, 20], vec![1, 2, 3, 4]));
    let late = Response::Bytes { offset: 1, bytes: &[2, 3, 4] };
    for bad in [
        vec![layer(1), layer(0), OUTPUT, DONE],
        vec![layer(0), OUTPUT, DONE],
        vec![layer(0), layer(1), DONE],
        vec![layer(0), layer(1), late, DONE],
    ] {
        assert!(matches!(infer(script(&bad)), Err(LinkError::Unexpected { .. })), "{bad:?}");
    }
    let cut = infer(script(&[layer(0), layer(1), OUTPUT]));
    assert!(matches!(cut, Err(LinkError::Timeout { what: "an inference", .. })));
}

#[test]
fn a_model_larger_than_the_device_takes_is_refused_before_it_is_sent() {
    let mut session = start([frames(&[Response::Hello(hello())])]).unwrap();
    let error = session.open(&[0; 5000]).unwrap_err().to_string();
    assert!(error.contains("5000") && error.contains("4096"), "{error}");
}

#[test]
fn a_recorded_session_replays_and_notices_another_question() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.jaqlog");
    let wire = script(&[layer(0), layer(1), OUTPUT, DONE]);
    let about = About::new(&wire, "desk", "b1", Parts::default());
    let live = infer(Recorder::new(wire, &about, &path).unwrap()).unwrap();
    let again = infer(Replay::open(&path).unwrap()).unwrap();
    assert_eq!(live, again);

    let wire = Replay::open(&path).unwrap();
    assert_eq!((wire.provenance(), wire.via()), (Provenance::Measured, "replay"));
    let expected = Expected { board: "desk".into(), build: None };
    let mut session = Session::start(wire, &expected, Duration::from_millis(50)).unwrap();
    let error = session.open(&[6; 32]).unwrap_err().to_string();
    assert!(error.contains("the recording has another question"), "{error}");

    assert_eq!(Replay::open(&path).unwrap().about(), &about);
}

#[test]
fn a_recording_that_is_damaged_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.jaqlog");
    let wire = script(&[layer(0), layer(1), OUTPUT, DONE]);
    let about = About::new(&wire, "desk", "b1", Parts::default());
    infer(Recorder::new(wire, &about, &path).unwrap()).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let error = Replay::open(&path).err().expect("a refusal").to_string();
        assert!(error.contains("session.jaqlog"), "{error}");
        error
    };
    assert!(refused("device of nobody\n").contains("`device of nobody`"));
    assert!(refused("").contains("begins with ``"));
    assert!(refused(&good.replacen('{', "[", 1)).contains("line 2"));
    assert!(refused(&good.replacen("\n< ", "\n< zz", 1)).contains("line 5"));
    assert!(refused(&good.replacen("\n> ", "\n~ ", 1)).contains("line 3"));
    assert!(refused(&good.replacen("\n< ", "\n< 00", 1)).contains("checksum"));
    assert!(refused(&good.replacen("end ", "end x", 1)).contains("not understood"));
    std::fs::remove_file(&path).unwrap();
    assert!(Replay::open(&path).err().unwrap().to_string().contains("cannot read"));

    // Cut off, as by a killed host: it replays as far as it goes.
    let lines: Vec<&str> = good.lines().collect();
    std::fs::write(&path, lines[..lines.len() - 4].join("\n")).unwrap();
    let error = infer(Replay::open(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("the recording ends here"), "{error}");
}

#[test]
fn how_a_session_failed_is_recorded_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.jaqlog");
    for answers in [vec![frames(&[Response::Hello(hello())]), None], vec![None], vec![]] {
        let run = |wire: Box<dyn Wire>| {
            let expected = Expected { board: "desk".into(), build: None };
            Session::start(wire, &expected, Duration::from_millis(20))
                .and_then(|mut session| session.stats())
                .unwrap_err()
                .to_string()
        };
        let wire = Script::new(answers);
        let about = About::new(&wire, "desk", "b1", Parts::default());
        let live = run(Box::new(Recorder::new(wire, &about, &path).unwrap()));
        let again = run(Box::new(Replay::open(&path).unwrap()));
        assert_eq!(again.replace("recorded: ", ""), live);
    }
}
