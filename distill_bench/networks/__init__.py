"""The networks of teachers and students: BiT ResNets and MobileNetV3."""
