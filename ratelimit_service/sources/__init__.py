"""Where policies come from: files (later: xDS). Sources call `policy`; nothing below knows them."""
