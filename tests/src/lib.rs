//! Golden vectors, recorded sessions, command-line transcripts and the tidy test of JAQ.
