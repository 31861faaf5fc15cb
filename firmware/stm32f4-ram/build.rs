//! See `jaq_board_build`.

fn main() {
    jaq_board_build::board();
}
