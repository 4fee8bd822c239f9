"""What every gRPC server needs beside HTTP/2: status codes, deadlines, health messages."""
