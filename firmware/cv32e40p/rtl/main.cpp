// Runs the simulated microcontroller: loads an ELF file by the back door, gives it a clock, and carries
// the mailbox to standard input and output. Simulated time stands still while the firmware waits for
// the host, so that what it measures never depends on the host.
//
//   simulator FIRMWARE.elf [--fetch-waits N] [--data-waits N] [--log FILE] [--jtag PORT]
//
// --jtag opens a local TCP port for one debugger that speaks OpenOCD's `remote_bitbang`; port 0
// takes a free one; either is printed to standard error as `jtag: port N`. The debugger's clock
// drives the simulation while it sends, and the firmware runs free in between.
// Ends with the code the firmware gives; 2 if the host is gone, 3 if the arguments do not do.

#include <arpa/inet.h>
#include <elf.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "Vsoc.h"
#include "Vsoc___024root.h"
#include "verilated.h"

namespace {

constexpr int GONE = 2;
constexpr int USAGE = 3;
constexpr size_t MEMORY_BYTES = 2 * 1024 * 1024;
// Core cycles for each edge of the debugger's clock: the debug module crosses clocks.
constexpr int CYCLES_PER_EDGE = 3;
// Core cycles between two looks at the debugger's socket.
constexpr int CYCLES_PER_POLL = 2000;

// Lives until the process ends: Verilator's own globals are gone before a destructor of ours runs.
Vsoc *soc = nullptr;
std::vector<uint8_t> input, output;
size_t input_at = 0;
FILE *log_file = nullptr;
int debugger = -1;
bool ended = false;
int exit_code = 0;

[[noreturn]] void fail(int code, const std::string &text) {
    fprintf(stderr, "simulator: %s\n", text.c_str());
    exit(code);
}

void flush() {
    size_t sent = 0;
    while (sent < output.size()) {
        ssize_t n = write(STDOUT_FILENO, output.data() + sent, output.size() - sent);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) exit(GONE);
        sent += size_t(n);
    }
    output.clear();
}

void cycle() {
    soc->clk = 1;
    soc->eval();
    soc->clk = 0;
    soc->eval();
}

void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(USAGE, std::string(path) + ": " + strerror(errno));
    std::vector<uint8_t> bytes;
    uint8_t buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;)
        bytes.insert(bytes.end(), buffer, buffer + n);
    fclose(file);
    Elf32_Ehdr header;
    if (bytes.size() < sizeof header) fail(USAGE, std::string(path) + " is no ELF file");
    memcpy(&header, bytes.data(), sizeof header);
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS32 ||
        header.e_machine != EM_RISCV)
        fail(USAGE, std::string(path) + " is no 32-bit RISC-V ELF file");
    auto *memory = reinterpret_cast<uint8_t *>(&soc->rootp->soc__DOT__memory[0]);
    for (int index = 0; index < header.e_phnum; index++) {
        Elf32_Phdr segment;
        size_t at = size_t(header.e_phoff) + size_t(index) * header.e_phentsize;
        if (at + sizeof segment > bytes.size()) fail(USAGE, std::string(path) + " is cut short");
        memcpy(&segment, bytes.data() + at, sizeof segment);
        if (segment.p_type != PT_LOAD || segment.p_filesz == 0) continue;
        if (uint64_t(segment.p_offset) + segment.p_filesz > bytes.size())
            fail(USAGE, std::string(path) + " is cut short");
        if (uint64_t(segment.p_paddr) + segment.p_filesz > MEMORY_BYTES)
            fail(USAGE, std::string(path) + " has a segment outside the memory");
        memcpy(memory + segment.p_paddr, bytes.data() + segment.p_offset, segment.p_filesz);
    }
    soc->boot = header.e_entry & ~3u;
}

unsigned number(const char *option, const char *text, unsigned limit) {
    char *end = nullptr;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;
    if (!text || end == text || *end || value > limit)
        fail(USAGE, std::string(option) + " takes a number up to " + std::to_string(limit));
    return unsigned(value);
}

// Waits for a debugger on a local port.
void wait_for_debugger(unsigned port) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(uint16_t(port));
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, reinterpret_cast<sockaddr *>(&address), length) != 0 ||
        listen(listener, 1) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length) != 0)
        fail(USAGE, "port " + std::to_string(port) + ": " + strerror(errno));
    fprintf(stderr, "jtag: port %d\n", ntohs(address.sin_port));
    debugger = accept(listener, nullptr, nullptr);
    close(listener);
    if (debugger < 0) fail(GONE, std::string("no debugger: ") + strerror(errno));
    setsockopt(debugger, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

// Obeys what the debugger has sent; returns without waiting for more.
void serve_debugger() {
    static std::vector<uint8_t> answers;
    uint8_t commands[4096];
    pollfd ready{debugger, POLLIN, 0};
    if (poll(&ready, 1, 0) <= 0) return;
    ssize_t n = recv(debugger, commands, sizeof commands, 0);
    if (n <= 0) {
        // A debugger may go; the firmware stays.
        close(debugger);
        debugger = -1;
        return;
    }
    answers.clear();
    for (ssize_t i = 0; i < n; i++) {
        uint8_t command = commands[i];
        if (command >= '0' && command <= '7') {
            uint8_t pins = uint8_t(command - '0');
            soc->tck = (pins >> 2) & 1;
            soc->tms = (pins >> 1) & 1;
            soc->tdi = pins & 1;
            for (int k = 0; k < CYCLES_PER_EDGE && !ended; k++) cycle();
        } else if (command == 'R') {
            answers.push_back(uint8_t('0' + soc->tdo));
        } else if (command >= 'r' && command <= 'u') {
            // Bit 1 is TRST, bit 0 SRST, both active high.
            uint8_t pins = uint8_t(command - 'r');
            soc->trst_n = !((pins >> 1) & 1);
            soc->rst_n = !(pins & 1);
            for (int k = 0; k < CYCLES_PER_EDGE; k++) cycle();
        } else if (command == 'Q') {
            ended = true;
        }
    }
    for (size_t sent = 0; sent < answers.size();) {
        ssize_t m = send(debugger, answers.data() + sent, answers.size() - sent, MSG_NOSIGNAL);
        if (m <= 0) break;
        sent += size_t(m);
    }
}

}  // namespace

// The next byte from the host. Without a debugger the simulation waits for it; with one it must go
// on, and the firmware asks again.
extern "C" int mailbox_read() {
    if (input_at == input.size()) {
        flush();
        if (debugger >= 0) {
            pollfd ready{STDIN_FILENO, POLLIN, 0};
            if (poll(&ready, 1, 0) <= 0) return -1;
        }
        input.resize(65536);
        ssize_t n;
        do n = read(STDIN_FILENO, input.data(), input.size());
        while (n < 0 && errno == EINTR);
        input.resize(n > 0 ? size_t(n) : 0);
        input_at = 0;
        if (n <= 0) {
            ended = true;
            exit_code = GONE;
            return -1;
        }
    }
    return input[input_at++];
}

extern "C" void mailbox_write(int register_index, int value) {
    switch (register_index) {
        case 1:
            output.push_back(uint8_t(value));
            // A zero ends a frame.
            if (uint8_t(value) == 0 || output.size() >= 4096) flush();
            break;
        case 2:
            if (log_file) {
                fputc(value & 0xff, log_file);
                fflush(log_file);
            }
            break;
        case 3:
            ended = true;
            exit_code = value & 0xff;
            break;
        default:
            break;
    }
}

int main(int argc, char **argv) {
    const char *elf = nullptr;
    long port = -1;
    soc = new Vsoc;
    soc->fetch_waits = 0;
    soc->data_waits = 0;
    for (int i = 1; i < argc; i++) {
        std::string option = argv[i];
        const char *value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (option.rfind("--", 0) != 0) {
            if (elf) fail(USAGE, "one firmware at a time");
            elf = argv[i];
            continue;
        }
        i++;
        if (option == "--fetch-waits") {
            soc->fetch_waits = number("--fetch-waits", value, 255);
        } else if (option == "--data-waits") {
            soc->data_waits = number("--data-waits", value, 255);
        } else if (option == "--jtag") {
            port = long(number("--jtag", value, 65535));
        } else if (option == "--log") {
            if (!value || !(log_file = fopen(value, "wb"))) fail(USAGE, "--log takes a file");
        } else {
            fail(USAGE, "unknown option " + option);
        }
    }
    if (!elf) fail(USAGE, "no firmware given");
    load(elf);
    soc->clk = 0;
    soc->tck = 0;
    soc->tms = 1;
    soc->tdi = 0;
    soc->trst_n = 0;
    soc->rst_n = 0;
    soc->eval();
    for (int i = 0; i < 4; i++) cycle();
    soc->rst_n = 1;
    soc->trst_n = 1;
    if (port >= 0) wait_for_debugger(unsigned(port));
    while (!ended) {
        if (debugger >= 0) serve_debugger();
        for (int i = 0; i < CYCLES_PER_POLL && !ended; i++) cycle();
    }
    flush();
    soc->final();
    if (log_file) fclose(log_file);
    return exit_code;
}
