"""What a job is told: its briefing, the answers of its siblings, the subtasks it may ask for."""
