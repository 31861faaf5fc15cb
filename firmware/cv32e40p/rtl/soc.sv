// The microcontroller around the core: CV32E40P with its PULP extensions, riscv-dbg behind JTAG, two
// megabytes of memory, and a mailbox to the host. Cycles counted here are cycles of the core's RTL.
//
//   0x0000_0000  1 MiB  code, constants, models (stands for flash; writable, for models that come
//                       over the link)
//   0x0010_0000  1 MiB  RAM
//   0x1000_0000         mailbox, a word each: +0 next byte from the host (negative: none yet),
//                       +4 byte to the host, +8 byte of the log, +c ends the simulation with a code
//   0x1a11_0000         debug module
//
// Instruction port, data port and debugger each have a way of their own into the memory, so that
// neither data accesses nor a polling debugger alter how long a fetch takes.

// A slave of the OBI protocol: grants a request when idle and answers `waits` + 1 cycles later.
module obi_port (
    input  logic        clk,
    input  logic        rst_n,
    input  logic [ 7:0] waits,
    input  logic        req,
    output logic        gnt,
    output logic        rvalid
);
  logic [7:0] left;
  logic       busy;
  assign gnt    = left == '0;
  assign rvalid = busy && left == '0;
  always_ff @(posedge clk, negedge rst_n) begin
    if (!rst_n) begin
      left <= '0;
      busy <= '0;
    end else if (left != '0) begin
      left <= left - 1'b1;
    end else begin
      busy <= req;
      left <= req ? waits : '0;
    end
  end
endmodule

module soc (
    input  logic        clk,
    input  logic        rst_n,
    // First instruction.
    input  logic [31:0] boot,
    // Wait states of the memory, for instructions and for data.
    input  logic [ 7:0] fetch_waits,
    input  logic [ 7:0] data_waits,
    input  logic        tck,
    input  logic        tms,
    input  logic        trst_n,
    input  logic        tdi,
    output logic        tdo
);
  localparam logic [31:0] DEBUG = 32'h1a11_0000;
  localparam int WORDS = 2 * 1024 * 1024 / 4;

  import "DPI-C" context function int mailbox_read();
  import "DPI-C" context function void mailbox_write(input int register_index, input int value);

  logic [31:0] memory[WORDS]  /*verilator public_flat_rw*/;

  // What the ports have carried, for whoever fits a memory's cost.
  logic [31:0] fetches  /*verilator public_flat_rd*/;
  logic [31:0] accesses  /*verilator public_flat_rd*/;

  logic instr_req, instr_gnt, instr_rvalid;
  logic [31:0] instr_addr, instr_rdata;
  logic data_req, data_gnt, data_rvalid, data_we;
  logic [3:0] data_be;
  logic [31:0] data_addr, data_wdata, data_rdata;
  logic debug_req, ndmreset;
  logic dm_req, dm_we;
  logic [31:0] dm_addr, dm_wdata, dm_rdata;
  logic [3:0] dm_be;
  logic sb_req, sb_we, sb_rvalid;
  logic [31:0] sb_addr, sb_wdata, sb_rdata;
  logic [3:0] sb_be;

  wire core_rst_n = rst_n & ~ndmreset;

  cv32e40p_core #(
      .COREV_PULP(1),
      .NUM_MHPMCOUNTERS(1)
  ) core (
      .clk_i(clk),
      .rst_ni(core_rst_n),
      .pulp_clock_en_i(1'b1),
      .scan_cg_en_i(1'b0),
      .boot_addr_i(boot),
      .mtvec_addr_i(32'h0),
      .dm_halt_addr_i(DEBUG + 32'h800),
      .hart_id_i(32'h0),
      .dm_exception_addr_i(DEBUG + 32'h808),
      .instr_req_o(instr_req),
      .instr_gnt_i(instr_gnt),
      .instr_rvalid_i(instr_rvalid),
      .instr_addr_o(instr_addr),
      .instr_rdata_i(instr_rdata),
      .data_req_o(data_req),
      .data_gnt_i(data_gnt),
      .data_rvalid_i(data_rvalid),
      .data_we_o(data_we),
      .data_be_o(data_be),
      .data_addr_o(data_addr),
      .data_wdata_o(data_wdata),
      .data_rdata_i(data_rdata),
      .apu_busy_o(),
      .apu_req_o(),
      .apu_gnt_i(1'b0),
      .apu_operands_o(),
      .apu_op_o(),
      .apu_flags_o(),
      .apu_rvalid_i(1'b0),
      .apu_result_i('0),
      .apu_flags_i('0),
      .irq_i('0),
      .irq_ack_o(),
      .irq_id_o(),
      .debug_req_i(debug_req),
      .debug_havereset_o(),
      .debug_running_o(),
      .debug_halted_o(),
      .fetch_enable_i(1'b1),
      .core_sleep_o()
  );

  dm_wrap debug_module (
      .clk,
      .rst_n,
      .ndmreset,
      .debug_req,
      .dm_req,
      .dm_we,
      .dm_addr,
      .dm_be,
      .dm_wdata,
      .dm_rdata,
      .sb_req,
      .sb_addr,
      .sb_we,
      .sb_wdata,
      .sb_be,
      .sb_gnt(1'b1),
      .sb_rvalid,
      .sb_rdata,
      .tck,
      .tms,
      .trst_n,
      .tdi,
      .tdo,
      .tdo_oe()
  );

  function automatic logic in_memory(input logic [31:0] address);
    return address[31:21] == '0;
  endfunction
  function automatic logic in_mailbox(input logic [31:0] address);
    return address[31:12] == 20'h10000;
  endfunction
  function automatic logic in_debug(input logic [31:0] address);
    return address[31:12] == DEBUG[31:12];
  endfunction

  logic instr_idle, data_idle;
  // The debug module has one slave port; data comes first. Only a halted core uses it.
  wire data_debug = data_req & in_debug(data_addr);
  wire instr_debug = instr_req & in_debug(instr_addr);
  assign dm_req = (data_debug & data_gnt) | (instr_debug & instr_gnt);
  assign dm_we = data_debug & data_we;
  assign dm_addr = data_debug ? data_addr : instr_addr;
  assign dm_be = data_debug ? data_be : 4'hf;
  assign dm_wdata = data_wdata;

  obi_port instr_port (
      .clk,
      .rst_n(core_rst_n),
      .waits(in_memory(instr_addr) ? fetch_waits : 8'h0),
      .req(instr_req & ~(instr_debug & data_debug)),
      .gnt(instr_idle),
      .rvalid(instr_rvalid)
  );
  assign instr_gnt = instr_req & instr_idle & ~(instr_debug & data_debug);

  obi_port data_port (
      .clk,
      .rst_n(core_rst_n),
      .waits(in_memory(data_addr) ? data_waits : 8'h0),
      .req(data_req),
      .gnt(data_idle),
      .rvalid(data_rvalid)
  );
  assign data_gnt = data_req & data_idle;

  // What is read in the cycle of the grant is held until the answer.
  logic [31:0] instr_word, data_word;
  logic instr_from_debug, data_from_debug;
  assign instr_rdata = instr_from_debug ? dm_rdata : instr_word;
  assign data_rdata  = data_from_debug ? dm_rdata : data_word;

  always_ff @(posedge clk) begin
    if (instr_gnt) begin
      instr_from_debug <= instr_debug;
      instr_word <= in_memory(instr_addr) ? memory[instr_addr[20:2]] : 32'h0;
      fetches <= fetches + 1'b1;
    end
  end

  always_ff @(posedge clk) begin
    if (data_gnt) begin
      data_from_debug <= data_debug;
      accesses <= accesses + 1'b1;
      if (in_memory(data_addr)) begin
        data_word <= memory[data_addr[20:2]];
        if (data_we) begin
          if (data_be[0]) memory[data_addr[20:2]][7:0] <= data_wdata[7:0];
          if (data_be[1]) memory[data_addr[20:2]][15:8] <= data_wdata[15:8];
          if (data_be[2]) memory[data_addr[20:2]][23:16] <= data_wdata[23:16];
          if (data_be[3]) memory[data_addr[20:2]][31:24] <= data_wdata[31:24];
        end
      end else if (in_mailbox(data_addr)) begin
        if (data_we) mailbox_write(int'(data_addr[3:2]), int'(data_wdata));
        else data_word <= mailbox_read();
      end else begin
        data_word <= 32'h0;
      end
    end
    // The debugger's own way into the memory.
    sb_rvalid <= sb_req;
    if (sb_req && in_memory(sb_addr)) begin
      sb_rdata <= memory[sb_addr[20:2]];
      if (sb_we) begin
        if (sb_be[0]) memory[sb_addr[20:2]][7:0] <= sb_wdata[7:0];
        if (sb_be[1]) memory[sb_addr[20:2]][15:8] <= sb_wdata[15:8];
        if (sb_be[2]) memory[sb_addr[20:2]][23:16] <= sb_wdata[23:16];
        if (sb_be[3]) memory[sb_addr[20:2]][31:24] <= sb_wdata[31:24];
      end
    end
  end
endmodule
