//! The command line on a terminal: colours, the screen of `top`, and what is said to who waits.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::evenkeel_cli::command;
use evenkeel_tests::host::privileged;
use evenkeel_tests::process::signal_to;
use evenkeel_tests::wait::{WAIT_LIMIT, eventually_some};
use evenkeel_tests::{Agent, Cluster, Outcome, Shop};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// A terminal: the side that a program has, and the side of who looks and presses keys.
fn terminal() -> Result<(File, File)> {
    let (mut person, mut program) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are written before it returns 0; a name and modes are not asked for.
    let made = unsafe { libc::openpty(&mut person, &mut program, null, null.cast(), &size) };
    ensure!(made == 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: both were opened just now, and are nobody else's.
    Ok(unsafe { (File::from_raw_fd(program), File::from_raw_fd(person)) })
}

/// The modes that say whether what is typed is edited, echoed, and made signals of.
fn modes(terminal: &File) -> Result<libc::tcflag_t> {
    let mut modes = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: it is written before it returns 0.
    let read = unsafe { libc::tcgetattr(terminal.as_raw_fd(), modes.as_mut_ptr()) };
    ensure!(read == 0, "no modes: {}", std::io::Error::last_os_error());
    // SAFETY: it returned 0.
    Ok(unsafe { modes.assume_init() }.c_lflag)
}

/// An agent that answers two questions and no third; what is sent here is that one has come.
fn half_an_agent(listener: TcpListener) -> mpsc::Receiver<()> {
    let (asked, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut held, mut requests) = (Vec::new(), 0);
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            while let Ok(1..) = stream.read(&mut request) {
                requests += 1;
                let body = if requests == 1 { r#"{"calls":[],"total":0,"cut":false}"# } else { "[]" };
                if requests > 2 {
                    let _ = asked.send(());
                    break;
                }
                let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
            held.push(stream);
        }
    });
    hears
}

#[test]
fn top_is_left_at_once_though_an_agent_hangs_and_gives_the_terminal_back() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    for leave in ["q", "\u{3}", "SIGINT", "SIGTERM", "SIGHUP"] {
        let listener = cluster.node.enter(|| TcpListener::bind("127.0.0.1:0"))??;
        let address = listener.local_addr()?.to_string();
        let hangs = half_an_agent(listener);
        let (program, mut person) = terminal()?;
        let before = modes(&program)?;
        let arguments = ["top", "--address", &address, "--interval", "1", "--timeout", "3600"];
        let mut top = usual(command(&cluster.node, &arguments)?)
            .stdin(program.try_clone()?)
            .stdout(program.try_clone()?)
            .stderr(Stdio::piped())
            .spawn()?;
        eventually_some("it asks a third time", || Ok(hangs.try_recv().ok()))?;
        ensure!(modes(&program)? != before, "keys are read as they are pressed");
        match leave {
            "SIGINT" => signal_to(top.id() as i32, libc::SIGINT),
            "SIGTERM" => signal_to(top.id() as i32, libc::SIGTERM),
            "SIGHUP" => signal_to(top.id() as i32, libc::SIGHUP),
            key => person.write_all(key.as_bytes())?,
        }
        let status = eventually_some("it ends", || Ok(top.try_wait()?));
        if status.is_err() {
            top.kill()?;
        }
        ensure!(status?.success(), "{leave:?}");
        ensure!(modes(&program)? == before, "{leave:?}: the terminal is as it was");
        drop(program);
        let mut drawn = Vec::new();
        // Its last program has gone, which is an error to read of.
        let _ = person.read_to_end(&mut drawn);
        let drawn = String::from_utf8_lossy(&drawn);
        ensure!(drawn.starts_with("\u{1b}[?1049h"), "it is drawn on a screen of its own: {drawn:?}");
        ensure!(drawn.ends_with("\u{1b}[?1049l"), "the shell's screen is back: {drawn:?}");
    }
    Ok(())
}

/// As if a person had typed it at a usual terminal.
fn usual(mut command: Command) -> Command {
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    command
}

/// What it writes to standard output, where that is a terminal, until its end.
fn shown(command: &mut Command) -> Result<String> {
    let (program, mut person) = terminal()?;
    let mut child =
        command.stdin(program.try_clone()?).stdout(program.try_clone()?).stderr(Stdio::null()).spawn()?;
    drop(program);
    // The command has the program's side open as well.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut shown = Vec::new();
    let _ = person.read_to_end(&mut shown);
    ensure!(child.wait()?.success(), "{command:?}: {}", String::from_utf8_lossy(&shown));
    Ok(String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn colours_are_for_terminals_that_want_them_alone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let _agent = Agent::start(&shop.cluster)?;
    let top = ["top", "--once", "--interval", "1"];
    for arguments in [&["status"][..], &["endpoints"], &["check"], &top, &["--help"]] {
        for (name, value, is_coloured) in [
            ("TERM", "xterm-256color", true),
            ("TERM", "dumb", false),
            ("NO_COLOR", "1", false),
            ("NO_COLOR", "", true),
        ] {
            let mut command = usual(command(&shop.cluster.node, arguments)?);
            let shown = shown(command.env(name, value))?;
            ensure!(shown.contains('\u{1b}') == is_coloured, "{arguments:?} {name}={value:?}: {shown:?}");
        }
        let piped = usual(command(&shop.cluster.node, arguments)?).output()?;
        ensure!(!piped.stdout.is_empty() && !piped.stdout.contains(&0x1b), "{arguments:?}: {piped:?}");
    }
    for arguments in
        [&["status", "-o", "json"][..], &["check", "-o", "yaml"], &["top", "--interval", "1", "-o", "json"]]
    {
        let shown = shown(&mut usual(command(&shop.cluster.node, arguments)?))?;
        ensure!(!shown.is_empty() && !shown.contains('\u{1b}'), "{arguments:?}: {shown:?}");
    }
    // A terminal that cannot be drawn on gets lines.
    let mut top = usual(command(&shop.cluster.node, &["top", "--interval", "1"])?);
    let shown = shown(top.env("TERM", "dumb"))?;
    ensure!(shown.contains("calls/s") && !shown.contains('\u{1b}'), "{shown:?}");
    Ok(())
}

#[test]
fn who_waits_for_calls_is_told_for_which_and_that_none_has_come() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let _agent = Agent::start(&shop.cluster)?;
    let arguments = ["tap", "-n", "shop", "--method", "a.B/*", "--status", "error"];
    let (program, mut person) = terminal()?;
    let mut tap = usual(command(&shop.cluster.node, &arguments)?)
        .stdout(Stdio::piped())
        .stderr(program.try_clone()?)
        .spawn()?;
    drop(program);
    let (reads, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = person.read(&mut piece) {
            let _ = reads.send(String::from_utf8_lossy(&piece[..read]).into_owned());
        }
    });
    let mut said = String::new();
    let mut read_until = |words: &str| -> Result<()> {
        while !said.contains(words) {
            let piece = pieces.recv_timeout(WAIT_LIMIT).with_context(|| format!("no {words:?}: {said:?}"))?;
            said.push_str(&piece);
        }
        Ok(())
    };
    read_until("Ctrl-C ends.")?;
    read_until("No such call has ended yet")?;
    signal_to(tap.id() as i32, libc::SIGINT);
    let mut table = String::new();
    tap.stdout.take().context("a pipe")?.read_to_string(&mut table)?;
    ensure!(tap.wait()?.success() && table.lines().count() == 1 && table.starts_with("TIME "), "{table:?}");
    let line = said.lines().next().context("a line")?;
    for words in ["the namespace shop", "of the method a.B/*", "of the status error", "one agent"] {
        ensure!(line.contains(words), "{words}: {line}");
    }
    Ok(())
}
