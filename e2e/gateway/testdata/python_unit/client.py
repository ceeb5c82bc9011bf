"""Calls proto.EchoService at the address in its argument in the ways that grpcio
has. It ends with 0 where all is as it should be, and with a traceback otherwise."""

import sys

import grpc


def message(text):
    data = text.encode()
    length, head = len(data), b"\x0a"
    while length > 0x7F:
        head, length = head + bytes([length & 0x7F | 0x80]), length >> 7
    return head + bytes([length]) + data


def want(got, wanted):
    assert got == wanted, f"got {got!r}, want {wanted!r}"


def fails(code, details, call):
    try:
        call()
    except grpc.RpcError as error:
        want(error.code(), code)
        if details is not None:
            want(error.details(), details)
    else:
        raise AssertionError(f"no error, want {code}")


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        echo = channel.unary_unary("/proto.EchoService/Echo")
        for text in ("", "hello", "\N{SNOWMAN}" * 1000, "x" * 1_000_000):
            want(echo(message(text), timeout=30, wait_for_ready=True), message(text))
        want(echo(message("packed" * 1000), timeout=30, compression=grpc.Compression.Gzip), message("packed" * 1000))

        _, call = echo.with_call(message("who are you?"), timeout=30)
        assert dict(call.trailing_metadata())["unit"].startswith("worker-"), call.trailing_metadata()

        many = [echo.future(message(str(n)), timeout=30) for n in range(200)]
        for n, answer in enumerate(many):
            want(answer.result(), message(str(n)))

        fails(grpc.StatusCode.FAILED_PRECONDITION, "as was asked for: \N{SNOWMAN}",
              lambda: echo(message("x"), timeout=30, metadata=(("fail-with", "FAILED_PRECONDITION"),)))
        fails(grpc.StatusCode.UNIMPLEMENTED, None, lambda: channel.unary_unary("/proto.EchoService/Nothing")(b"", timeout=30))
        fails(grpc.StatusCode.UNIMPLEMENTED, None, lambda: channel.unary_unary("/no.Such/Method")(b"", timeout=30))

        chat = channel.stream_stream("/proto.EchoService/Chat")(iter([message(str(n)) for n in range(100)]), timeout=30)
        want(dict(chat.initial_metadata())["language"], "python")
        want(list(chat), [message(str(n)) for n in range(100)])
        want(chat.code(), grpc.StatusCode.OK)


main()
