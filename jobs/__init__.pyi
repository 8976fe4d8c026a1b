from jobs.manager import EnhancedJobManager
from jobs.recursion_manager import RecursionManager

__all__ = ["EnhancedJobManager", "RecursionManager"]
