"""An attempt as a process group: how it is started, sized, watched and ended."""
