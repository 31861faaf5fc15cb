# One layer on ZigZag's own `tpu_like`, LOMA, six loop prime factors, objective EDP. Arguments:
# output rows, columns, channels, input channels, window, padding. The last line is CPU seconds.
import logging, os, sys, tempfile, time

import yaml
import zigzag
from zigzag.api import get_hardware_performance_zigzag

logging.disable(logging.CRITICAL)
oh, ow, oc, ic, window, pad = map(int, sys.argv[1:])
layer = {
    "id": 0,
    "operator_type": "Conv",
    "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
    "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
    "loop_sizes": [1, oc, ic, oh, ow, window, window],
    "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
    "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
    "pr_loop_dims": ["IX", "IY"],
    "pr_loop_sizes": [ow, oh],
    "padding": [[pad, pad], [pad, pad]],
    "operand_source": {"W": 0, "I": 0},
}
inputs = os.path.join(os.path.dirname(zigzag.__file__), "inputs")
with tempfile.TemporaryDirectory() as folder:
    workload = os.path.join(folder, "layer.yaml")
    with open(workload, "w") as file:
        yaml.safe_dump([layer], file)
    start = time.process_time()
    energy, latency, _ = get_hardware_performance_zigzag(
        workload,
        os.path.join(inputs, "hardware", "tpu_like.yaml"),
        os.path.join(inputs, "mapping", "tpu_like.yaml"),
        opt="EDP",
        dump_folder=os.path.join(folder, "out"),
        lpf_limit=6,
        loma_show_progress_bar=False,
    )
    print(time.process_time() - start)
