//! A process in a pod, that opens sockets as it is told. It is this test binary again, in a cgroup and a network namespace of
//! its own; it goes when its handle does.

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;
use std::{env, io};

/// Tells the binary that it is to be the app.
const IS_APP: &str = "EVENKEEL_TEST_APP";
/// Begins the app's answers, among what the test runner prints.
const ANSWER: &str = "answer ";

/// How a socket dials.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Dial {
    pub(crate) to: Option<SocketAddr>,
    /// An AF_INET6 socket also for an IPv4 address, then dialled in its mapped form.
    pub(crate) mapped: bool,
    pub(crate) v6only: bool,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) device: Option<String>,
    pub(crate) mark: u32,
    pub(crate) mptcp: bool,
    pub(crate) fastopen: bool,
    pub(crate) udp: bool,
    /// How long to wait for the connection, in milliseconds; 0 = as long as a test may take.
    pub(crate) patience_ms: u64,
}

/// A socket that dials an address, and nothing special.
pub(crate) fn dial(to: &str) -> Dial {
    Dial { to: Some(to.parse().unwrap()), ..Dial::default() }
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Dial(Dial),
    /// Names of the socket dialled as the n-th.
    Names(usize),
    /// Reads from a socket until its end or an error.
    Read(usize),
    /// Writes to a socket until it takes no more.
    Fill(usize),
}

/// What the app sees of a socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    pub(crate) peer: SocketAddr,
    pub(crate) own: SocketAddr,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Dialled(usize),
    Names(Names),
    Done,
    Failed(String),
}

/// The handle of an app.
pub(crate) struct App {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl App {
    /// Starts an app in a cgroup and a fresh network namespace.
    pub(crate) fn start(cgroup: &Path) -> Self {
        let enter = File::options().write(true).open(cgroup.join("cgroup.procs")).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "app::process", "--nocapture"]).env(IS_APP, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let prepare = move || {
            // SAFETY: plain system calls, as is fit between fork and exec.
            let ready = unsafe {
                libc::write(enter.as_raw_fd(), b"0".as_ptr().cast(), 1) == 1
                    && libc::unshare(libc::CLONE_NEWNET) == 0
                    && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
            };
            if ready { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: `prepare` allocates nothing and takes no lock.
        let mut child = unsafe { command.pre_exec(prepare) }.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the app, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Runs `ip` in the app's network namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        let output = self.run_ip(arguments);
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// As [`Self::ip`]; whether it succeeded.
    pub(crate) fn try_ip(&self, arguments: &str) -> bool {
        self.run_ip(arguments).status.success()
    }

    fn run_ip(&self, arguments: &str) -> Output {
        let namespace = format!("--net=/proc/{}/ns/net", self.pid());
        Command::new("nsenter").arg(namespace).arg("ip").args(arguments.split(' ')).output().unwrap()
    }

    /// Dials; the number of the socket.
    pub(crate) fn dial(&mut self, dial: Dial) -> Result<usize, String> {
        match self.order(&Order::Dial(dial)) {
            Answer::Dialled(number) => Ok(number),
            Answer::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn names(&mut self, socket: usize) -> Names {
        match self.order(&Order::Names(socket)) {
            Answer::Names(names) => names,
            other => panic!("{other:?}"),
        }
    }

    /// Reads until the end of the stream, or the error.
    pub(crate) fn read(&mut self, socket: usize) -> Result<(), String> {
        match self.order(&Order::Read(socket)) {
            Answer::Done => Ok(()),
            Answer::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Writes until the socket takes no more.
    pub(crate) fn fill(&mut self, socket: usize) {
        assert!(matches!(self.order(&Order::Fill(socket)), Answer::Done));
    }

    fn order(&mut self, order: &Order) -> Answer {
        writeln!(self.orders, "{}", serde_json::to_string(order).unwrap()).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the app has gone");
            // The test runner begins the first line.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return serde_json::from_str(answer).unwrap();
            }
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: the app's own side.
#[test]
fn process() {
    if env::var_os(IS_APP).is_none() {
        return;
    }
    let mut sockets: Vec<Socket> = Vec::new();
    for order in io::stdin().lines() {
        let answer = obey(serde_json::from_str(&order.unwrap()).unwrap(), &mut sockets);
        println!("{ANSWER}{}", serde_json::to_string(&answer).unwrap());
    }
}

fn obey(order: Order, sockets: &mut Vec<Socket>) -> Answer {
    let done = match order {
        Order::Dial(dial) => open(&dial).map(|socket| {
            sockets.push(socket);
            Answer::Dialled(sockets.len() - 1)
        }),
        Order::Names(at) => {
            let socket = &sockets[at];
            let address = |a: io::Result<SockAddr>| a.map(|a| a.as_socket().unwrap());
            address(socket.peer_addr())
                .and_then(|peer| Ok(Answer::Names(Names { peer, own: address(socket.local_addr())? })))
        }
        Order::Read(at) => io::copy(&mut &sockets[at], &mut io::sink()).map(|_| Answer::Done),
        Order::Fill(at) => {
            let socket = &mut sockets[at];
            socket.set_nonblocking(true).unwrap();
            let error = io::copy(&mut io::repeat(0), socket).unwrap_err();
            socket.set_nonblocking(false).unwrap();
            if error.kind() == io::ErrorKind::WouldBlock { Ok(Answer::Done) } else { Err(error) }
        }
    };
    done.unwrap_or_else(|error| Answer::Failed(error.to_string()))
}

fn open(dial: &Dial) -> io::Result<Socket> {
    let to = dial.to.unwrap();
    let to = match to {
        SocketAddr::V4(v4) if dial.mapped => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        other => other,
    };
    let (kind, protocol) =
        if dial.udp { (Type::DGRAM, None) } else { (Type::STREAM, dial.mptcp.then_some(Protocol::MPTCP)) };
    let socket = Socket::new(Domain::for_address(to), kind, protocol)?;
    if dial.v6only {
        socket.set_only_v6(true)?;
    }
    if dial.mark != 0 {
        socket.set_mark(dial.mark)?;
    }
    if let Some(device) = &dial.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(from) = dial.from {
        socket.bind(&from.into())?;
    }
    if dial.fastopen {
        let on = 1_i32;
        // SAFETY: the value is as long as said.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_FASTOPEN_CONNECT,
                (&raw const on).cast(),
                size_of::<i32>() as u32,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
    // So that a connection that cannot be made is an error of the test, not a test that hangs.
    let patience_ms = if dial.patience_ms == 0 { 10_000 } else { dial.patience_ms };
    socket.connect_timeout(&to.into(), Duration::from_millis(patience_ms))?;
    Ok(socket)
}
