"""One network: as a value, a module and a cost; the paper's family, timm, peers. PLUGIN folder ``blocks``."""
