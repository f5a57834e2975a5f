#include "csupport.h"

__thread const void *cs_current_executor;
