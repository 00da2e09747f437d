//! Fetching data sets from a server on loopback: whole, interrupted and resumed, damaged.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use bitscope::dataset::cifar10::{download, read};
use bitscope::dataset::{Archive, idx};
use sha2::{Digest, Sha256};

/// An archive in the official layout, of blank pictures.
fn archive() -> Vec<u8> {
    let record = 1 + 3 * 32 * 32;
    let mut content = vec![0; record * 10_000];
    for (i, record) in content.chunks_mut(record).enumerate() {
        record[0] = (i % 10) as u8;
    }
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(encoder);
    for name in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let path = format!("cifar-10-batches-bin/{name}.bin");
        tar.append_data(&mut header, path, &content[..])
            .expect("appended");
    }
    tar.into_inner()
        .expect("finished")
        .finish()
        .expect("compressed")
}

/// Serves so many requests, each up to `cut` bytes of what it asked for, then ends.
fn serve(body: Vec<u8>, requests: usize, cut: Option<usize>) -> (String, JoinHandle<Vec<u64>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "http://{}/cifar.tar.gz",
        listener.local_addr().expect("an address")
    );
    let thread = std::thread::spawn(move || {
        let mut starts = Vec::new();
        for (i, stream) in listener.incoming().take(requests).enumerate() {
            let cut = if i == 0 { cut } else { None };
            starts.push(answer(stream.expect("a connection"), &body, cut));
        }
        starts
    });
    (url, thread)
}

fn answer(mut stream: TcpStream, body: &[u8], cut: Option<usize>) -> u64 {
    let mut start = 0;
    let reader = BufReader::new(stream.try_clone().expect("cloned"));
    for line in reader.lines() {
        let line = line.expect("a line").to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().expect("a start");
        }
        if line.is_empty() {
            break;
        }
    }
    let rest = &body[start as usize..];
    let status = if start > 0 {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    );
    // The client may go away early; that is its business.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&rest[..cut.unwrap_or(rest.len()).min(rest.len())]);
    start
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn interrupted_resumed_verified_unpacked() {
    let body = archive();
    let folder = tempfile::tempdir().expect("a folder");
    let (url, server) = serve(body.clone(), 2, Some(body.len() / 3));
    let archive = Archive {
        url,
        sha256: sha256(&body),
    };
    let error = download(&archive, folder.path(), |_, _| {})
        .expect_err("cut")
        .to_string();
    assert!(error.contains("run the command again"), "{error}");
    let mut last = (0, None);
    download(&archive, folder.path(), |done, total| last = (done, total)).expect("complete");
    assert_eq!(last, (body.len() as u64, Some(body.len() as u64)));
    let starts = server.join().expect("served");
    assert!(starts[0] == 0 && starts[1] > 0, "{starts:?}");
    let (train, test) = read(folder.path()).expect("readable");
    assert_eq!((train.labels.len(), test.labels.len()), (50_000, 10_000));
    // What is there is not fetched again: no server answers any more.
    download(&archive, folder.path(), |_, _| {}).expect("nothing to do");
}

#[test]
fn a_damaged_archive_is_refused_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, server) = serve(b"not an archive".to_vec(), 1, None);
    let archive = Archive {
        url,
        sha256: sha256(b"something else"),
    };
    let error = download(&archive, folder.path(), |_, _| {})
        .expect_err("damaged")
        .to_string();
    assert!(
        error.contains("expected SHA-256") && error.contains("removed"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
    server.join().expect("served");
}

#[test]
fn broken_files_say_which_where_and_what_was_expected() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("data_batch_1.bin");
    let error = read(folder.path()).expect_err("missing").to_string();
    assert!(error.contains("data_batch_1.bin"), "{error}");
    std::fs::write(&path, vec![0; 1000]).expect("written");
    let error = read(folder.path()).expect_err("short").to_string();
    assert!(
        error.contains("at byte 1000") && error.contains("30730000 bytes"),
        "{error}"
    );
    let mut bytes = vec![0; 3073 * 10_000];
    bytes[3073 * 42] = 11;
    std::fs::write(&path, bytes).expect("written");
    let error = read(folder.path()).expect_err("label").to_string();
    assert!(
        error.contains(&format!("at byte {}", 3073 * 42)) && error.contains("label 11"),
        "{error}"
    );
}

/// Four packed IDX files: the first attempt breaks off in the second file.
#[test]
fn idx_files_are_fetched_verified_and_gone_on_with() {
    let packed = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("packed");
        encoder.finish().expect("packed")
    };
    let file = |dims: &[u32], values: &[u8]| {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(values);
        bytes
    };
    let pictures: Vec<u8> = (0..4 * 5 * 5).collect();
    let contents = [
        ("train-images-idx3-ubyte.gz", file(&[4, 5, 5], &pictures)),
        ("train-labels-idx1-ubyte.gz", file(&[4], &[0, 1, 2, 1])),
        ("t10k-images-idx3-ubyte.gz", file(&[4, 5, 5], &pictures)),
        ("t10k-labels-idx1-ubyte.gz", file(&[4], &[0, 1, 2, 0])),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let mut servers = Vec::new();
    let mut archives = Vec::new();
    for (i, (name, content)) in contents.iter().enumerate() {
        let (requests, cut) = if i == 1 { (2, Some(9)) } else { (1, None) };
        let (url, server) = serve(packed(content), requests, cut);
        archives.push(Archive {
            url: url.replace("cifar.tar.gz", name),
            sha256: sha256(content),
        });
        servers.push(server);
    }
    let error = idx::download(&archives, folder.path(), |_, _| {}).expect_err("cut");
    assert!(
        error.to_string().contains("run the command again"),
        "{error}"
    );
    idx::download(&archives, folder.path(), |_, _| {}).expect("complete");
    let starts: Vec<Vec<u64>> = servers
        .into_iter()
        .map(|s| s.join().expect("served"))
        .collect();
    assert_eq!(starts, [vec![0], vec![0, 9], vec![0], vec![0]]);
    // What is there is not fetched again: no server answers any more.
    idx::download(&archives, folder.path(), |_, _| {}).expect("nothing to do");
    // Another file of that name is nobody's to remove.
    let other = folder.path().join("t10k-labels-idx1-ubyte.gz");
    std::fs::write(&other, packed(b"someone's")).expect("written");
    let error = idx::download(&archives, folder.path(), |_, _| {}).expect_err("another file");
    assert!(error.to_string().contains("or no such file"), "{error}");
    assert_eq!(
        std::fs::read(&other).expect("still there"),
        packed(b"someone's")
    );
    let names: Vec<_> = idx::fashion_mnist(Some("http://x/"))
        .into_iter()
        .map(|a| a.url)
        .collect();
    assert_eq!(names[3], "http://x/t10k-labels-idx1-ubyte.gz");
}
