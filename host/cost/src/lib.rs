//! Boards, cost models, BatchTile, the cost tensor and the memory planner of JAQ.
